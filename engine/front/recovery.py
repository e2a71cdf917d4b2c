"""What a lost worker group means to sessions: who waits for the next one, for how long, and which way back each takes.

A young video is made again exactly; one too old to catch up within ``recovery_grace_s`` is restored approximately from
saved latents (``engine.front.course``). A session over which one worker after the other dies, without a new block in
between, ends: it is the cause. Sends nothing.
"""

import asyncio
import logging
from collections.abc import Callable

from engine.config import EngineConfig
from engine.errors import HiarError, WorkerLost
from engine.front.course import Course
from engine.front.session import Recovery, Session
from engine.law.placement import Plan

logger = logging.getLogger(__name__)

MAX_VAIN_LOSSES = 2
"""Workers that may die while busy with one session, without one new block of it in between."""


class Recoveries:
    """Sessions between two worker groups."""

    def __init__(self, config: EngineConfig, give_up: Callable[[Session, HiarError], None]) -> None:
        """``give_up`` ends a session that waited for too long."""
        self._config, self._give_up = config, give_up
        self._waiting: dict[str, tuple[Session, asyncio.TimerHandle]] = {}
        self._losses: dict[str, tuple[int, int]] = {}
        """Of each session that was ever lost: its blocks then, and the workers that died over it since it had them."""
        self._courses: dict[str, Course] = {}

    def replayable_blocks(self, plan: Plan) -> int:
        """The longest video that is made again within the grace, with all places of its chain taken."""
        slowest_s = max(plan.block_s(chain) for chain in range(len(plan.chains)))
        return int(self._config.recovery_grace_s / (slowest_s * self._config.max_videos))

    def needs_saving(self, block: int, plan: Plan) -> bool:
        """Whether a restored session could need what the cache passes of ``block`` read."""
        rollout = self._config.manifest.rollout
        return block < rollout.sink_blocks or block >= self.replayable_blocks(plan) - rollout.window_blocks

    def note_progress(self, session: Session, course: Course, plan: Plan | None) -> None:
        """A session made a new block: keep no more of its course than a way back can need."""
        done = session.progress.done
        course.forget_before(done)
        if plan is not None and done > self.replayable_blocks(plan) and course.can_restore(done):
            course.forget_prompts_before(done)

    def may_wait(self, session: Session, course: Course, *, suspected: bool) -> bool:
        """Let a session wait for the next workers; False when too many were lost over the same block of it."""
        done = session.progress.done
        at, losses = self._losses.get(session.id, (done, 0))
        losses = (losses if at == done else 0) + suspected
        if losses > MAX_VAIN_LOSSES:
            return False
        self._losses[session.id] = (done, losses)
        self._courses[session.id] = course
        loop, grace_s = asyncio.get_running_loop(), self._config.recovery_grace_s
        error = WorkerLost(f"no new workers served within {grace_s:g} s after the loss")
        self._waiting[session.id] = (session, loop.call_later(grace_s, self._give_up, session, error))
        return True

    def resume(self, plan: Plan) -> list[tuple[Session, int]]:
        """Workers serve again: every waiting session and the block at which it goes on; 0 makes it again.

        One that neither way leads back to ends.
        """
        waiting, self._waiting = list(self._waiting.values()), {}
        resumed = []
        for session, timer in waiting:
            timer.cancel()
            block = self._way_back(session, plan)
            if block is None:
                self._give_up(session, WorkerLost("too little is known of the video to go on with new workers"))
                continue
            exact = block == 0
            session.recoveries.append(Recovery(block=session.progress.done, exact=exact))
            way = "made again exactly" if exact else "restored approximately, from saved latents,"
            logger.warning("session %s is %s to go on at block %d", session.id, way, session.progress.done)
            resumed.append((session, block))
        return resumed

    def _way_back(self, session: Session, plan: Plan) -> int | None:
        """0 to make it again, the next block to restore it, None if neither can be done."""
        done, course = session.progress.done, self._courses[session.id]
        if course.can_make_again() and (done <= self.replayable_blocks(plan) or not course.can_restore(done)):
            return 0
        return done if course.can_restore(done) else None

    def forget(self, session: Session) -> None:
        """A session ended."""
        self._losses.pop(session.id, None)
        self._courses.pop(session.id, None)
        _, timer = self._waiting.pop(session.id, (None, None))
        if timer is not None:
            timer.cancel()
