"""How a video ended, as it is kept in its row."""

import json
from dataclasses import dataclass
from typing import Self

from engine import (
    BlockGone,
    Conflict,
    Ended,
    EndReason,
    HiarError,
    PromptMark,
    Recovery,
    VideoFailed,
    VideoHandle,
    VideoRequest,
    VideoState,
    VideoStatus,
)
from server.errors import ERRORS
from server.videos.store.plain import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is still told of an ended video."""

    end_reason: EndReason | None
    error_code: str | None
    error_message: str
    started_events: int
    """Events before the last one."""
    num_blocks: int | None
    blocks_done: int
    seconds_done: float
    num_bytes: int
    realtime_factor: float | None
    num_stalls: int
    stalled_s: float
    block_s: float
    prompts: tuple[PromptMark, ...]
    recoveries: tuple[Recovery, ...]
    continuation: VideoRequest | None
    """What would continue it, with its last prompt; None where nothing can. Without its bytes."""

    @classmethod
    def of(cls, video: VideoHandle) -> Self:
        """How a video ended that has."""
        status = video.status()
        return cls(
            end_reason=status.end_reason,
            error_code=None if status.failure is None else status.failure.code,
            error_message="" if status.failure is None else status.failure.message,
            started_events=_num_events(video) - 1,
            num_blocks=status.num_blocks,
            blocks_done=status.blocks_done,
            seconds_done=status.seconds_done,
            num_bytes=status.num_bytes,
            realtime_factor=status.realtime_factor,
            num_stalls=status.num_stalls,
            stalled_s=status.stalled_s,
            block_s=video.block_s,
            prompts=status.prompts,
            recoveries=status.recoveries,
            continuation=_continuation(video),
        )

    def text(self) -> str:
        """As JSON."""
        return json.dumps(to_plain(self, []))

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``text`` wrote."""
        return from_plain(cls, json.loads(text), None)

    @property
    def failure(self) -> HiarError | None:
        """Why it failed, if it did."""
        if self.error_code is None:
            return None
        return _failures().get(self.error_code, VideoFailed)(self.error_message)

    @property
    def happening(self) -> Ended:
        """The last thing that happened to it."""
        outcome = self.failure or self.end_reason
        assert outcome is not None, "a video ended without an outcome"
        return Ended(outcome, self.blocks_done, self.seconds_done)

    def status(
        self, video_id: str, request: VideoRequest, created_at: float, ended_at: float, expires_at: float
    ) -> VideoStatus:
        """As the engine tells it of a video that it has."""
        return VideoStatus(
            id=video_id,
            request=request,
            state=VideoState.ENDED,
            is_paused=False,
            is_queued=False,
            queue_position=None,
            created_at=created_at,
            ended_at=ended_at,
            expires_at=expires_at,
            num_blocks=self.num_blocks,
            blocks_done=self.blocks_done,
            seconds_done=self.seconds_done,
            first_block=0,
            num_bytes=self.num_bytes,
            lead_s=None,
            realtime_factor=self.realtime_factor,
            num_stalls=self.num_stalls,
            stalled_s=self.stalled_s,
            num_readers=0,
            prompts=self.prompts,
            end_reason=self.end_reason,
            failure=self.failure,
            recoveries=self.recoveries,
        )


def _continuation(video: VideoHandle) -> VideoRequest | None:
    try:
        return video.extended(1.0, None, "")
    except (Conflict, BlockGone):
        return None


def _num_events(video: VideoHandle) -> int:
    number = 0
    while (happened := video.happened(number)) is not None:
        number = happened[0]
    return number


def _failures() -> dict[str, type[VideoFailed]]:
    kinds = (row.kind for row in ERRORS if row.kind is not None)
    return {kind.code: kind for kind in kinds if issubclass(kind, VideoFailed)}
