"""What a lost worker group means to videos: who waits for the next one, for how long, and which way back each takes.

A young video is made again exactly, and so is a job that nobody reads, whatever its age. Another that is too old to
catch up within ``recovery_grace_s`` is restored approximately from saved latents (``engine.front.log``). A video over
which one worker after the other dies, without a new block in between, ends: it is the cause. Pure: times are given,
and nothing is sent.
"""

import logging
from collections import deque

from engine.engine_config import EngineConfig
from engine.errors import HiarError, WorkerLost
from engine.front.events import GroupLost
from engine.front.kept import Recovery
from engine.front.video import Loss, Video, VideoState
from engine.law.placement import Plan
from engine.request import EndReason

logger = logging.getLogger(__name__)

MAX_VAIN_LOSSES = 2
"""Workers that may die while busy with one video, without one new block of it in between."""


class Recoveries:
    """Videos between two worker groups."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._lost: deque[Video] = deque()
        """Those that wait, in the order of their deadlines; some may have ended."""

    def replayable_blocks(self, plan: Plan) -> int:
        """The longest video that is made again within the grace, with all places of its chain taken."""
        slowest_s = max(plan.block_s(chain) for chain in range(len(plan.chains)))
        return int(self._config.recovery_grace_s / (slowest_s * self._config.max_videos))

    def needs_saving(self, block: int, plan: Plan) -> bool:
        """Whether a restored video could need what the cache passes of ``block`` read."""
        rollout = self._config.manifest.rollout
        return block < rollout.sink_blocks or block >= self.replayable_blocks(plan) - rollout.window_blocks

    def note_progress(self, video: Video, plan: Plan | None) -> None:
        """A video made a new block: keep no more for workers than a way back can need."""
        done, log = video.progress.done, video.log
        log.forget_saved_before(done)
        made = video.progress.before + done
        is_old = plan is not None and not video.is_job and made > self.replayable_blocks(plan)
        if is_old and log.can_restore(done):
            log.forget_prompts_before(done)

    def outcome(self, video: Video, loss: GroupLost, now: float) -> EndReason | HiarError | None:
        """How a video ends with its group, at a block boundary if it was ending anyway; None lets it wait."""
        closing = video.closing
        if (
            closing is not None
            and closing.reason is not None
            and (video.has_outcome or video.progress.all_done or not closing.is_behind_all)
        ):
            return closing.reason
        return None if self.may_wait(video, now, suspected=video.id in loss.suspects) else loss.error

    def may_wait(self, video: Video, now: float, *, suspected: bool) -> bool:
        """Let a video wait for the next workers; False when too many were lost over the same block of it."""
        done, last = video.progress.done, video.loss
        num_vain = (last.num_vain if last is not None and last.block == done else 0) + suspected
        if num_vain > MAX_VAIN_LOSSES:
            return False
        video.loss = Loss(block=done, num_vain=num_vain, until=now + self._config.recovery_grace_s)
        self._lost.append(video)
        return True

    def waiting(self) -> list[Video]:
        """Workers serve again: all that waited for them."""
        waiting = [video for video in self._lost if video.state == VideoState.RECOVERING]
        self._lost.clear()
        return waiting

    def overdue(self, now: float) -> list[Video]:
        """Those that waited for too long."""
        overdue = []
        while self._lost and ((until := _until(self._lost[0])) is None or until <= now):
            video = self._lost.popleft()
            if video.state == VideoState.RECOVERING:
                overdue.append(video)
        return overdue

    @property
    def next_overdue_at(self) -> float | None:
        """When the next one will have; call it behind ``overdue``."""
        return _until(self._lost[0]) if self._lost else None

    @property
    def too_late(self) -> WorkerLost:
        """What an overdue video ends with."""
        return WorkerLost(f"no new workers served within {self._config.recovery_grace_s:g} s after the loss")

    def way_back(self, video: Video, plan: Plan) -> int | None:
        """Workers serve again: the block at which a video goes on; None without a way back.

        It is made again from the very first block, or restored at the next one.
        """
        block = self._first_block(video, plan)
        if block is None:
            return None
        _note(video, is_made_again=block == -video.progress.before)
        return block

    def made_again(self, video: Video) -> None:
        """A video of an earlier life of the server begins at block 0."""
        _note(video, is_made_again=True)

    def _first_block(self, video: Video, plan: Plan) -> int | None:
        done, before, log = video.progress.done, video.progress.before, video.log
        has_time = before + done <= self.replayable_blocks(plan) or (video.is_job and not video.readers)
        if log.can_make_again() and (has_time or not log.can_restore(done)):
            return -before
        return done if log.can_restore(done) else None


def _note(video: Video, *, is_made_again: bool) -> None:
    """It goes on by new workers. What was restored once is not made again as it was."""
    exact = is_made_again and all(past.exact for past in video.recoveries)
    video.recoveries.append(Recovery(block=video.progress.done, exact=exact))
    way = "made again" if is_made_again else "restored from saved latents"
    logger.warning("video %s is %s to go on at block %d, exact: %s", video.id, way, video.progress.done, exact)


def _until(video: Video) -> float | None:
    """When a video will have waited for too long; None if it does not wait any more."""
    return video.loss.until if video.state == VideoState.RECOVERING and video.loss is not None else None
