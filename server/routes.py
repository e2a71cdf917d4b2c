"""What each address does. Thin: reads the request, asks the engine, shapes the answer.

Knows neither bytes on the wire (``delivery``) nor status codes of failures (``errors``).
"""

from dataclasses import asdict
from typing import Annotated

from fastapi import Depends
from starlette.responses import Response

from engine import Engine, EngineFacts, EngineLoad, EngineState, EngineUnavailable
from server.body import body_of
from server.delivery import LiveVideo
from server.metrics.families import Families
from server.options import ROOT
from server.schemas import (
    CapabilitiesAnswer,
    DtypesAnswer,
    FactsAnswer,
    GenerateRequest,
    HealthAnswer,
    LimitsAnswer,
    LoadAnswer,
    ModelAnswer,
    ModelsAnswer,
    PromptChange,
    PromptChanged,
    SessionAnswer,
    WorkerAnswer,
    session_request,
    size_names,
)
from server.settings import Settings

FRAMES_PER_LATENT_FRAME = 4
_STARTING_RETRY_S = 5.0
_PLAYER_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self' blob:"


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


class InfoRoutes:
    """What the server can do and how it is."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def models(self) -> ModelsAnswer:
        """List the models that can be asked for."""
        manifest = self._engine.manifest
        model = ModelAnswer(
            name=manifest.name,
            description=manifest.description,
            sizes=size_names(manifest),
            fps=manifest.video.fps,
            max_fps=manifest.video.max_fps,
        )
        return ModelsAnswer(models=[model])

    async def capabilities(self) -> CapabilitiesAnswer:
        """Tell what a player needs before it asks for a video."""
        manifest, facts, load = self._engine.manifest, self._engine.facts, self._engine.load
        block_frames = manifest.rollout.latent_frames_per_block * FRAMES_PER_LATENT_FRAME
        return CapabilitiesAnswer(
            state=self._engine.state,
            model=manifest.name,
            mime=f'video/mp4; codecs="{facts.codecs}"' if facts else None,
            sizes=size_names(manifest),
            fps=manifest.video.fps,
            max_fps=manifest.video.max_fps,
            block_seconds=block_frames / manifest.video.fps,
            limits=self._limits(),
            load=_load(load),
            facts=_facts(facts) if facts else None,
        )

    async def livez(self) -> HealthAnswer:
        """Tell whether the process should go on living."""
        if self._engine.state is EngineState.FAILED:
            raise EngineUnavailable(self._failure(), retry_after_s=_STARTING_RETRY_S)
        return HealthAnswer(status="alive")

    async def readyz(self) -> HealthAnswer:
        """Tell whether new work would be taken now."""
        state = self._engine.state
        if state is EngineState.READY:
            return HealthAnswer(status="ready")
        if state is EngineState.FAILED:
            raise EngineUnavailable(self._failure(), retry_after_s=_STARTING_RETRY_S)
        code = state.value if state in (EngineState.STARTING, EngineState.DRAINING) else "engine_unavailable"
        progress = self._engine.start_progress
        detail = f"the engine is {state.value}" + (f": {progress}" if progress else "")
        raise EngineUnavailable(detail, retry_after_s=_STARTING_RETRY_S, code=code)

    def _failure(self) -> str:
        failure = self._engine.failure
        return failure.message if failure else "the engine has failed"

    def _limits(self) -> LimitsAnswer:
        return LimitsAnswer(
            max_videos=self._settings.max_videos,
            max_queue=self._settings.max_queue,
            max_seconds=self._settings.max_seconds,
            body_bytes=self._settings.transport.body_bytes,
        )


class PlayerRoutes:
    """The browser player, read once at start."""

    def __init__(self) -> None:
        folder = ROOT / "clients" / "player"
        self._page = (folder / "index.html").read_bytes()
        self._script = (folder / "player.js").read_bytes()

    async def page(self) -> Response:
        """The player."""
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": _PLAYER_POLICY})

    async def script(self) -> Response:
        """The player's program."""
        return Response(self._script, media_type="text/javascript")


def _facts(facts: EngineFacts) -> FactsAnswer:
    parts = zip(facts.plan.parts, facts.device_names, strict=True)
    return FactsAnswer(
        workers=[
            WorkerAnswer(
                rank=part.rank,
                device=part.device if part.device == name else f"{part.device} ({name})",
                chain=part.chain,
                stages=list(part.names),
                load_s=round(part.load_s, 4),
            )
            for part, name in parts
        ],
        frames_per_second=round(facts.frames_per_s, 2),
        attention=facts.attention,
        dtypes=DtypesAnswer(**asdict(facts.dtypes)),
        decoder=facts.decoder,
        encoder=facts.encoder,
    )


def _load(load: EngineLoad) -> LoadAnswer:
    return LoadAnswer(
        running=load.running,
        waiting=load.waiting,
        slots=load.slots,
        pages_used=load.pages_used,
        num_pages=load.num_pages,
        restarts=load.restarts,
    )
