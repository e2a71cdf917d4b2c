"""New sessions before they can start: every prompt they bring is embedded, and changed if its viewer is quick.

Ends in a ``Course`` or, when no worker will ever answer, in the session's failure. Knows no pages and no tickets.
"""

import asyncio
from collections.abc import Callable

from engine.config import RolloutConfig
from engine.errors import HiarError
from engine.front.course import Course
from engine.front.prompts import PromptEncoder
from engine.front.session import Session, SessionState
from engine.law.schedule import block_at_frame
from engine.messages import TensorBytes


class Preparation:
    """Sessions whose prompts are being embedded."""

    def __init__(
        self, prompts: PromptEncoder, rollout: RolloutConfig, prepared: Callable[[Session, Course], None]
    ) -> None:
        self._prompts, self._rollout, self._prepared = prompts, rollout, prepared
        self._early_changes: dict[str, TensorBytes] = {}
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, session: Session) -> None:
        """Prepare a queued session; ``prepared`` is called unless it ends meanwhile."""
        task = asyncio.get_running_loop().create_task(self._prepare(session))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def change_first_prompt(self, session: Session, embedding: TensorBytes) -> None:
        """A prompt came for a session that is not prepared yet: it holds from the first block."""
        self._early_changes[session.id] = embedding

    def forget(self, session: Session) -> None:
        """A session ended."""
        self._early_changes.pop(session.id, None)

    async def _prepare(self, session: Session) -> None:
        prompts = {}
        try:
            for prompt in session.request.prompts:
                block = block_at_frame(self._rollout, round(prompt.at_s * session.request.fps))
                prompts[block] = await self._prompts.embed(prompt.text)
        except HiarError as error:
            session.finish(error)
            return
        if session.state != SessionState.QUEUED:
            return  # closed meanwhile
        early = self._early_changes.pop(session.id, None)
        if early is not None:
            prompts[0] = early
        self._prepared(session, Course(session.id, self._rollout, prompts))
