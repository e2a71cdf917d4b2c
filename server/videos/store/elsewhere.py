"""A video that another server makes, or that waits for one: told of by what is stored, and read at its maker's."""

from engine import PromptMark, VideoRequest, VideoState, VideoStatus
from server.videos.store.journal import Contents
from server.videos.store.rows import VideoRow


class RunningElsewhere:
    """One of them, at the moment at which it was looked up."""

    def __init__(self, row: VideoRow, request: VideoRequest, contents: Contents) -> None:
        self._row, self._contents = row, contents
        self.id, self.model, self.request, self.created_at = row.id, row.model, request, row.created_at

    def status(self) -> VideoStatus:
        """How it is, as far as that is stored."""
        blocks = self._contents.blocks
        seconds_done = blocks[-1].start_s + blocks[-1].duration_s if blocks else 0.0
        return VideoStatus(
            id=self.id,
            request=self.request,
            state=VideoState.RUNNING if blocks else VideoState.QUEUED,
            is_paused=self._contents.is_paused,
            is_queued=not blocks,
            queue_position=None,
            created_at=self.created_at,
            ended_at=None,
            expires_at=None,
            num_blocks=self._row.num_blocks,
            blocks_done=len(blocks),
            seconds_done=seconds_done,
            first_block=0,
            num_bytes=self._contents.num_bytes,
            lead_s=None,
            realtime_factor=None,
            num_stalls=0,
            stalled_s=0.0,
            num_readers=0,
            prompts=self._prompts(),
            end_reason=None,
            failure=None,
            recoveries=tuple(self._contents.recoveries),
        )

    def _prompts(self) -> tuple[PromptMark, ...]:
        starts = {block: place.start_s for block, place in enumerate(self._contents.blocks)}
        told = {block: text for block, text in self._contents.prompts if block in starts}
        if not told:
            return (PromptMark(0, 0.0, self.request.prompts[0].text),)
        return tuple(PromptMark(block, starts[block], text) for block, text in sorted(told.items()))
