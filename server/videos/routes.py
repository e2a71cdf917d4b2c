"""Making a video and steering it. Thin: reads the request, asks the engine, shapes the answer.

Knows neither bytes on the wire (``live``) nor status codes of failures (``errors``).
"""

from typing import Annotated

from fastapi import Depends
from starlette.responses import Response

from engine import Engine
from server.http.body import body_of
from server.metrics.families import Families
from server.settings import Settings
from server.videos.live import LiveVideo
from server.videos.schemas import GenerateRequest, PromptChange, PromptChanged, VideoAnswer, video_request


class VideoRoutes:
    """Making a video and steering it."""

    def __init__(self, engine: Engine, settings: Settings, families: Families) -> None:
        self._engine = engine
        self._settings = settings
        self._families = families

    async def generate(self, body: Annotated[GenerateRequest, Depends(body_of(GenerateRequest))]) -> Response:
        """Generate a video and stream it while it is made: an init segment, then one fragment a block."""
        max_seconds = self._settings.max_seconds
        request = video_request(body, self._engine.manifest, max_seconds)
        cut = body.seconds is None and max_seconds is not None
        return LiveVideo(self._engine, request, self._settings.transport, self._families, cut=cut)

    async def status(self, video_id: str) -> VideoAnswer:
        """Tell how far a video is."""
        return VideoAnswer.of(self._engine.video(video_id).status())

    async def change_prompt(
        self, video_id: str, body: Annotated[PromptChange, Depends(body_of(PromptChange))]
    ) -> PromptChanged:
        """Change what a running video shows, from the returned block on."""
        video = self._engine.video(video_id)
        return PromptChanged(video=video_id, block=await video.change_prompt(body.prompt))

    async def cancel(self, video_id: str) -> Response:
        """End a video at once; ending an ended one changes nothing."""
        await self._engine.video(video_id).close()
        return Response(status_code=204)
