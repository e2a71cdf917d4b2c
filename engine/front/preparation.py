"""New sessions before they can start: every prompt they bring is embedded, and changed if its viewer is quick.

A session gets its ``Course`` or, when no worker will ever answer, fails. Knows no pages and no tickets.
"""

import asyncio
from collections.abc import Callable

from engine.config import RolloutConfig
from engine.errors import HiarError
from engine.front.course import Course
from engine.front.prompts import PromptEncoder
from engine.front.session import Session, SessionState
from engine.law.schedule import block_at_frame


class Preparation:
    """Sessions whose prompts are being embedded."""

    def __init__(
        self,
        prompts: PromptEncoder,
        rollout: RolloutConfig,
        prepared: Callable[[], None],
        failed: Callable[[Session, HiarError], None],
    ) -> None:
        """``prepared`` is called when a session may start, ``failed`` when one never will."""
        self._prompts, self._rollout = prompts, rollout
        self._prepared, self._failed = prepared, failed
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, session: Session) -> None:
        """Prepare a queued session: it has a course then, unless it ends meanwhile."""
        task = asyncio.get_running_loop().create_task(self._prepare(session))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _prepare(self, session: Session) -> None:
        prompts = {}
        try:
            for prompt in session.request.prompts:
                block = block_at_frame(self._rollout, round(prompt.at_s * session.request.fps))
                prompts[block] = await self._prompts.embed(prompt.text)
        except HiarError as error:
            if session.state == SessionState.QUEUED:
                self._failed(session, error)
            return
        if session.state != SessionState.QUEUED:
            return  # closed meanwhile
        if session.first_prompt is not None:
            prompts[0] = session.first_prompt
        session.course = Course(session.id, self._rollout, prompts)
        self._prepared()
