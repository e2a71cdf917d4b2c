"""Making a video, reading it and steering it. Thin: reads the request, asks the engine, shapes the answer.

Knows neither bytes on the wire (``live``) nor status codes of failures (``errors``).
"""

import itertools
import logging
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response, StreamingResponse

from engine import BlockGone, Engine, RequestError, VideoHandle
from server.http.body import body_of
from server.http.callers import caller_of
from server.http.exchange import note_video
from server.http.rates import Rates
from server.http.tokens import ViewerTokens
from server.metrics.families import Families
from server.metrics.streams import StreamRecord
from server.settings import Settings
from server.videos.idempotency import MemoryReceipts, Repeats
from server.videos.live import LiveStream
from server.videos.ownership import Ownership
from server.videos.query import from_block, page_of
from server.videos.resource import PromptChanged, VideoAnswer, VideoDeleted, VideosAnswer
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate, video_request

PROMPT_CHANGES = 2
"""Of one video, a second."""

_log = logging.getLogger(__name__)


class VideoRoutes:
    """All addresses of videos."""

    def __init__(
        self, engine: Engine, settings: Settings, families: Families, owned: Ownership, tokens: ViewerTokens
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._families = families
        self._tokens = tokens
        self._owned = owned
        self._repeats = Repeats(MemoryReceipts(), engine.video)
        self._prompt_changes = Rates()

    # --- making ---

    async def generate(
        self, request: Request, body: Annotated[GenerateRequest, Depends(body_of(GenerateRequest))]
    ) -> Response:
        """Generate a video and stream it while it is made: an init segment, then one fragment a block."""
        video, is_new = await self._open(request, body, body.linger_seconds)
        return self._stream(video, 0, is_callers=is_new)

    async def create(
        self, request: Request, body: Annotated[VideoCreate, Depends(body_of(VideoCreate))], response: Response
    ) -> VideoAnswer:
        """Generate a video that needs no reader; answers before anything is generated."""
        video, _ = await self._open(request, body, None)
        response.headers["Location"] = _address(video.id)
        return self._answer(request, video)

    async def _open(
        self, request: Request, body: GenerateRequest | VideoCreate, linger_s: float | None
    ) -> tuple[VideoHandle, bool]:
        """The video, and whether it is new: a request may come again."""
        caller = caller_of(request.scope)
        wanted = video_request(body, self._engine.manifest, self._settings.max_seconds, caller.client)
        self._owned.require_priority(caller, body.priority)

        async def make() -> VideoHandle:
            self._owned.require_room(caller)
            video = await self._engine.open(wanted, linger_s)
            _log.info("video %s was asked for: %dx%d", video.id, wanted.width_px, wanted.height_px)
            return video

        video, is_new = await self._repeats.once(request, caller.client, body, make)
        note_video(request.scope, video.id)
        return video, is_new

    # --- telling ---

    async def list(self, request: Request) -> VideosAnswer:
        """List the videos that run, wait, or are kept."""
        page, videos = page_of(request), self._owned.videos(caller_of(request.scope))
        ordered = list(videos if page.is_ascending else reversed(videos))
        ids = [video.id for video in ordered]
        if page.after is not None and page.after not in ids:
            raise RequestError(f"after: there is no video {page.after[:64]!r}", "after")
        begin = 0 if page.after is None else ids.index(page.after) + 1
        shown = ordered[begin : begin + page.limit]
        return VideosAnswer(
            data=[self._answer(request, video) for video in shown],
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=begin + page.limit < len(ordered),
        )

    async def retrieve(self, video_id: str, request: Request) -> VideoAnswer:
        """Tell how a video is."""
        return self._answer(request, self._engine.video(video_id))

    def _answer(self, request: Request, video: VideoHandle) -> VideoAnswer:
        caller = caller_of(request.scope)
        token = self._tokens.make(video.id) if caller.key is not None else caller.token
        return VideoAnswer.of(video.status(), self._engine.manifest.name, token)

    # --- steering ---

    async def change_prompt(
        self, video_id: str, body: Annotated[PromptChange, Depends(body_of(PromptChange))]
    ) -> PromptChanged:
        """Change what a running video shows, from the returned block on."""
        video = self._engine.video(video_id)
        self._prompt_changes.take(
            video_id,
            burst=PROMPT_CHANGES,
            per_s=PROMPT_CHANGES,
            what=f"a video takes {PROMPT_CHANGES} new prompts a second",
        )
        block = await video.change_prompt(body.prompt)
        return PromptChanged(id=video_id, block=block, at_seconds=video.start_s(block))

    async def cancel(self, video_id: str, request: Request) -> VideoAnswer:
        """End a video at its next block and keep what was made; one that has ended stays as it is."""
        video = self._engine.video(video_id)
        await video.cancel()
        return self._answer(request, video)

    async def delete(self, video_id: str) -> VideoDeleted:
        """End a video at once, if it runs, and forget it."""
        await self._engine.video(video_id).forget()
        return VideoDeleted(id=video_id)

    # --- reading ---

    async def stream(self, video_id: str, request: Request) -> Response:
        """Read a video from a block on, while it is made: an init segment, then fragments."""
        return self._stream(self._engine.video(video_id), from_block(request), is_callers=False)

    async def content(self, video_id: str) -> Response:
        """Read a whole video: what was made if it has ended, else as it is made."""
        video = self._engine.video(video_id)
        if not video.is_ended or video.init_segment is None:
            return self._stream(video, 0, is_callers=False)
        if video.kept.start > 0:
            raise BlockGone(f"the beginning is no longer kept; read /stream?from={video.kept.start}")
        length = len(video.init_segment.data) + sum(len(video.peek(block).data) for block in video.kept)
        headers = {"Content-Length": str(length), "Cache-Control": "no-store", "Accept-Ranges": "none"}
        media_type = f'video/mp4; codecs="{video.init_segment.codecs}"'
        return StreamingResponse(_parts(video), headers=headers, media_type=media_type)

    def _stream(self, video: VideoHandle, first: int | None, *, is_callers: bool) -> Response:
        facts = self._engine.fleet.facts
        assert facts is not None, "there is a video and no model"
        headers = {
            "X-Video-Id": video.id,
            "Location": _address(video.id),
            "X-Decoder": facts.decoder,
        }
        record = StreamRecord(self._families, is_callers=is_callers)
        return LiveStream(video, video.read(first), headers, self._settings.transport, record)


def _address(video_id: str) -> str:
    return f"/v1/videos/{video_id}"


def _parts(video: VideoHandle) -> Iterator[bytes]:
    """The bytes of an ended video."""
    assert video.init_segment is not None
    return itertools.chain([video.init_segment.data], (video.peek(block).data for block in video.kept))
