"""Making a video, reading it and steering it. Thin: reads the request, asks the engine, shapes the answer.

Knows neither bytes on the wire (``live``) nor status codes of failures (``errors``).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response

from engine import Engine, PromptAt, VideoHandle, VideoRequest
from server.http.body import body_of
from server.http.callers import Caller, caller_of, viewer_token
from server.http.exchange import note_video
from server.http.limits import let_go_of_body
from server.http.rates import Rates
from server.http.tokens import ViewerTokens
from server.metrics.families import Families
from server.metrics.streams import StreamRecord
from server.settings import Settings
from server.videos.events import EventStream, last_event
from server.videos.files import Files, Variant, refuse_later_parts
from server.videos.idempotency import Receipts, Repeats
from server.videos.library import Library
from server.videos.live import LiveStream
from server.videos.ownership import Ownership
from server.videos.query import from_block, page_of, variant_of
from server.videos.readable import AnyVideo, ToldVideo, extended, request_of
from server.videos.resource import PromptChanged, VideoAnswer, VideoDeleted, VideosAnswer
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate, VideoExtend, bounded, video_request
from server.videos.starts import Starts
from server.videos.store.elsewhere import RunningElsewhere
from server.videos.store.rows import Slip
from server.videos.upload import Asked, asked_of

PROMPT_CHANGES = 2
"""Of one video, a second."""

_log = logging.getLogger(__name__)


class VideoRoutes:
    """All addresses of videos."""

    def __init__(
        self,
        engine: Engine,
        library: Library,
        settings: Settings,
        families: Families,
        owned: Ownership,
        tokens: ViewerTokens,
        receipts: Receipts,
        on_made: Callable[[VideoHandle], None] | None = None,
    ) -> None:
        """``on_made`` is told of every video that is asked for."""
        self._engine = engine
        self._library = library
        self._on_made = on_made
        self._settings = settings
        self._families = families
        self._files = Files()
        self._tokens = tokens
        self._owned = owned
        self._repeats = Repeats(receipts, library.told)
        self._prompt_changes = Rates()
        self._starts = Starts(engine)

    # --- making ---

    async def generate(
        self, request: Request, asked: Annotated[Asked[GenerateRequest], Depends(asked_of(GenerateRequest))]
    ) -> Response:
        """Generate a video and stream it while it is made: an init segment, then one fragment a block."""
        video, is_new = await self._open(request, asked, asked.fields.linger_seconds)
        assert not isinstance(video, RunningElsewhere), "a stream's video lies in a store"
        return self._stream(video, 0, is_callers=is_new)

    async def create(
        self, request: Request, asked: Annotated[Asked[VideoCreate], Depends(asked_of(VideoCreate))], response: Response
    ) -> VideoAnswer:
        """Generate a video that needs no reader; answers before anything is generated."""
        video, _ = await self._open(request, asked, None)
        return self._answer_new(request, response, video)

    async def remix(
        self,
        video_id: str,
        request: Request,
        body: Annotated[PromptChange, Depends(body_of(PromptChange))],
        response: Response,
    ) -> VideoAnswer:
        """Make a video again with another prompt, from the same seed; it needs no reader."""
        caller, first = caller_of(request.scope), await request_of(await self._library.video(video_id))
        self._owned.require_priority(caller, first.priority)
        prompts = (PromptAt(at_s=0.0, text=body.prompt),)
        wanted = replace(first, prompts=prompts, remixed_from=video_id, owner=caller.client)
        return self._answer_new(request, response, await self._make(caller, wanted, None))

    async def extend(
        self,
        video_id: str,
        request: Request,
        body: Annotated[VideoExtend, Depends(body_of(VideoExtend))],
        response: Response,
    ) -> VideoAnswer:
        """Make a video that goes on where an ended one stopped; it needs no reader."""
        caller, first = caller_of(request.scope), await self._library.video(video_id)
        self._owned.require_priority(caller, first.request.priority)
        seconds = bounded(body.seconds, self._settings.max_seconds)
        wanted = await extended(first, seconds, body.prompt, caller.client)
        return self._answer_new(request, response, await self._make(caller, wanted, None))

    def _answer_new(self, request: Request, response: Response, video: ToldVideo) -> VideoAnswer:
        note_video(request.scope, video.id)
        response.headers["Location"] = _address(video.id)
        return self._answer(request, video)

    async def _open(
        self, request: Request, asked: Asked[GenerateRequest] | Asked[VideoCreate], linger_s: float | None
    ) -> tuple[ToldVideo, bool]:
        """The video, and whether it is new: a request may come again."""
        caller, fields = caller_of(request.scope), asked.fields
        wanted = video_request(fields, self._engine.manifest, self._settings.max_seconds, caller.client)
        self._owned.require_priority(caller, fields.priority)

        async def make(slip: Slip | None) -> VideoHandle:
            return await self._make(caller, await self._started(request, asked, wanted, linger_s), linger_s, slip)

        try:
            video, is_new = await self._repeats.once(request, caller.client, asked.words, make)
        finally:
            asked.media = None  # a stream goes on for long
            let_go_of_body(request.scope)
        note_video(request.scope, video.id)
        return video, is_new

    async def _started(
        self,
        request: Request,
        asked: Asked[GenerateRequest] | Asked[VideoCreate],
        wanted: VideoRequest,
        linger_s: float | None,
    ) -> VideoRequest:
        """The request with the pixels of its media, which only who may have a video has decoded; the body is let go."""
        media, asked.media = asked.media, None
        if media is not None:
            await self._require_limits(caller_of(request.scope), linger_s)
            self._engine.require_room(wanted)
            wanted = replace(wanted, start=await self._starts.pixels(media, wanted))
        let_go_of_body(request.scope)
        return wanted

    async def _require_limits(self, caller: Caller, linger_s: float | None) -> None:
        if linger_s is None:
            await self._owned.require_storage(caller)
        self._owned.require_room(caller)

    async def _make(
        self, caller: Caller, wanted: VideoRequest, linger_s: float | None, slip: Slip | None = None
    ) -> VideoHandle:
        await self._require_limits(caller, linger_s)  # nothing is awaited before the engine knows of the video
        if linger_s is None:
            video = await self._library.open_durable(wanted, slip)
        else:
            video = await self._engine.open(wanted, linger_s)
        if self._on_made is not None:
            self._on_made(video)
        _log.info("video %s was asked for: %dx%d", video.id, wanted.width_px, wanted.height_px)
        return video

    # --- telling ---

    async def list(self, request: Request) -> VideosAnswer:
        """List the videos that run, wait, or are kept."""
        shown, has_more = await self._owned.page(caller_of(request.scope), page_of(request))
        return VideosAnswer(
            data=[self._answer(request, video) for video in shown],
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=has_more,
        )

    async def retrieve(self, video_id: str, request: Request) -> VideoAnswer:
        """Tell how a video is."""
        return self._answer(request, await self._library.told(video_id))

    def _answer(self, request: Request, video: ToldVideo) -> VideoAnswer:
        token = viewer_token(caller_of(request.scope), self._tokens, video.id)
        model = self._engine.manifest.name if isinstance(video, VideoHandle) else video.model
        return VideoAnswer.of(self._library.status(video), model, token)

    # --- steering ---

    async def change_prompt(
        self, video_id: str, body: Annotated[PromptChange, Depends(body_of(PromptChange))]
    ) -> PromptChanged:
        """Change what a running video shows, from the returned block on."""
        video = await self._library.video(video_id)
        self._prompt_changes.take(
            video_id,
            burst=PROMPT_CHANGES,
            per_s=PROMPT_CHANGES,
            what=f"a video takes {PROMPT_CHANGES} new prompts a second",
        )
        block = await video.change_prompt(body.prompt)
        return PromptChanged(id=video_id, block=block, at_seconds=video.start_s(block))

    async def pause(self, video_id: str, request: Request) -> VideoAnswer:
        """Begin no more blocks of a video until it is resumed; a paused one stays as it is."""
        video = await self._library.video(video_id)
        video.pause()
        await self._library.written(video)
        return self._answer(request, video)

    async def resume(self, video_id: str, request: Request) -> VideoAnswer:
        """Go on with a paused video; one that is not paused stays as it is."""
        video = await self._library.video(video_id)
        video.resume()
        await self._library.written(video)
        return self._answer(request, video)

    async def cancel(self, video_id: str, request: Request) -> VideoAnswer:
        """End a video at its next block and keep what was made; one that has ended stays as it is."""
        video = await self._library.video(video_id)
        await video.cancel()
        await self._library.recorded(video)
        return self._answer(request, await self._library.video(video_id))

    async def delete(self, video_id: str) -> VideoDeleted:
        """End a video at once, if it runs, and forget it."""
        await self._library.remove(await self._library.told(video_id))
        return VideoDeleted(id=video_id)

    # --- reading ---

    async def stream(self, video_id: str, request: Request) -> Response:
        """Read a video from a block on, while it is made: an init segment, then fragments."""
        return self._stream(await self._library.video(video_id), from_block(request), is_callers=False)

    async def events(self, video_id: str, request: Request) -> Response:
        """What happens to a video, as server-sent events, until it has ended: from the first that is kept, or behind
        `Last-Event-ID`; 204, which ends a browser's asking again, when there will be none."""
        video, last = await self._library.video(video_id), last_event(request)
        if last is not None and video.is_settled and video.happened(last) is None:
            return Response(status_code=204)
        return EventStream(video, last or 0, self._settings.transport)

    async def content(self, video_id: str, request: Request) -> Response:
        """Read a whole video: as a file if it has ended, also in parts, else as it is made; or a picture of it."""
        variant, video = variant_of(request), await self._library.video(video_id)
        if variant is not Variant.VIDEO:
            return await self._files.picture(video, variant)
        if video.is_ended and len(video.kept) > 0:
            return await self._files.whole(video, request)
        refuse_later_parts(request)
        return self._stream(video, 0, is_callers=False)

    def _stream(self, video: AnyVideo, first: int | None, *, is_callers: bool) -> Response:
        facts = self._engine.fleet.facts
        headers = {"X-Video-Id": video.id, "Location": _address(video.id)}
        if facts is not None:  # an ended video can be read while the model loads
            headers["X-Decoder"] = facts.decoder
        record = StreamRecord(self._families, is_callers=is_callers)
        return LiveStream(video, video.read(first), headers, self._settings.transport, record)


def _address(video_id: str) -> str:
    return f"/v1/videos/{video_id}"
