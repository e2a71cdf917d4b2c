"""What the server can do and how it is."""

from dataclasses import asdict

from engine import VAE_TEMPORAL_STRIDE, Engine, EngineFacts, EngineLoad, EngineState
from server.errors import NOT_FOUND, ApiError, unavailable
from server.info.schemas import (
    CapabilitiesAnswer,
    DtypesAnswer,
    FactsAnswer,
    HealthAnswer,
    LimitsAnswer,
    LoadAnswer,
    ModelAnswer,
    ModelsAnswer,
    WorkerAnswer,
)
from server.settings import Settings


class InfoRoutes:
    """What the server can do and how it is."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._created = int(settings.model.stat().st_mtime)

    async def models(self) -> ModelsAnswer:
        """List the models that can be asked for."""
        return ModelsAnswer(data=[self._model()])

    async def model(self, name: str) -> ModelAnswer:
        """Tell of one model."""
        if name != self._engine.manifest.name:
            raise ApiError(NOT_FOUND, f"model: this server runs {self._engine.manifest.name!r} only", param="model")
        return self._model()

    def _model(self) -> ModelAnswer:
        manifest = self._engine.manifest
        return ModelAnswer(
            id=manifest.name,
            created=self._created,
            owned_by="hiar",
            description=manifest.description,
            preset=manifest.preset,
            sizes=manifest.video.size_names,
            fps=manifest.video.fps,
            max_fps=manifest.video.max_fps,
        )

    async def capabilities(self) -> CapabilitiesAnswer:
        """Tell what a player needs before it asks for a video."""
        manifest, facts, load = self._engine.manifest, self._engine.fleet.facts, self._engine.load
        block_frames = manifest.rollout.latent_frames_per_block * VAE_TEMPORAL_STRIDE
        return CapabilitiesAnswer(
            state=self._engine.state,
            model=manifest.name,
            mime=f'video/mp4; codecs="{facts.codecs}"' if facts else None,
            sizes=manifest.video.size_names,
            fps=manifest.video.fps,
            max_fps=manifest.video.max_fps,
            block_seconds=block_frames / manifest.video.fps,
            takes_pictures=facts.takes_pictures if facts else None,
            needs_key=self._settings.keys is not None,
            limits=self._limits(),
            load=_load(load),
            facts=_facts(facts) if facts else None,
        )

    async def livez(self) -> HealthAnswer:
        """Tell whether the process should go on living."""
        if self._engine.state is EngineState.FAILED:
            raise unavailable(EngineState.FAILED, self._detail())
        return HealthAnswer(status="alive")

    async def readyz(self) -> HealthAnswer:
        """Tell whether new work would be taken now."""
        state = self._engine.state
        if state is EngineState.READY:
            return HealthAnswer(status="ready")
        raise unavailable(state, self._detail())

    def _detail(self) -> str:
        state, fleet = self._engine.state, self._engine.fleet
        if state is EngineState.FAILED:
            return fleet.failure.message if fleet.failure else "the engine has failed"
        return f"the engine is {state.value}" + (f": {fleet.start_progress}" if fleet.start_progress else "")

    def _limits(self) -> LimitsAnswer:
        return LimitsAnswer(
            max_videos=self._settings.engine.max_videos,
            max_queue=self._settings.engine.max_queue,
            max_seconds=self._settings.max_seconds,
            body_bytes=self._settings.transport.body_bytes,
            upload_bytes=self._settings.max_upload,
            max_per_client=self._settings.max_per_client,
        )


def _facts(facts: EngineFacts) -> FactsAnswer:
    parts = zip(facts.plan.placements, facts.device_names, strict=True)
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
