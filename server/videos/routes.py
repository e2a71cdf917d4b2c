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
from server.videos.schemas import GenerateRequest, PromptChange, PromptChanged, SessionAnswer, session_request


class VideoRoutes:
    """Making a video and steering it."""

    def __init__(self, engine: Engine, settings: Settings, families: Families) -> None:
        self._engine = engine
        self._settings = settings
        self._families = families

    async def generate(self, body: Annotated[GenerateRequest, Depends(body_of(GenerateRequest))]) -> Response:
        """Generate a video and stream it while it is made: an init segment, then one fragment a block."""
        max_seconds = self._settings.max_seconds
        request = session_request(body, self._engine.manifest, max_seconds)
        cut = body.seconds is None and max_seconds is not None
        return LiveVideo(self._engine, request, self._settings.transport, self._families, cut=cut)

    async def status(self, session_id: str) -> SessionAnswer:
        """Tell how far a session is."""
        return SessionAnswer.of(self._engine.session(session_id).status())

    async def change_prompt(
        self, session_id: str, body: Annotated[PromptChange, Depends(body_of(PromptChange))]
    ) -> PromptChanged:
        """Change what a running session shows, from the returned block on."""
        session = self._engine.session(session_id)
        return PromptChanged(session=session_id, block=await session.change_prompt(body.prompt))

    async def cancel(self, session_id: str) -> Response:
        """End a session at once; ending an ended one changes nothing."""
        await self._engine.session(session_id).close()
        return Response(status_code=204)
