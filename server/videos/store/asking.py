"""Asks the database on a thread of its own, one question at a time, for the event loop."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from engine import StorageFailed

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class Asking:
    """The thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "hiar-database")

    async def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """What ``question`` returns. Raises ``StorageFailed`` where the database does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except SQLAlchemyError as error:
            _log.error("the database failed: %s", error)
            raise StorageFailed("the database of videos does not answer; the server's log says why") from error

    def stop(self) -> None:
        """Answer what was asked, and end."""
        self._thread.shutdown()
