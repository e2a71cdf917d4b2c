"""The pipelined engine. Callers use this facade only."""

from engine.config import SIDE_STEP_PX, DecoderKind, Lora, Manifest, Order
from engine.engine import Engine, run_agent
from engine.engine_config import (
    DTYPES,
    MAX_MASTER_PORT,
    NARROW_DTYPES,
    EngineConfig,
    EngineOptions,
    Nodes,
    Precision,
    is_device,
)
from engine.errors import (
    BlockGone,
    BlockTooEarly,
    CorruptLatents,
    EncoderFailed,
    EngineOutOfMemory,
    EngineUnavailable,
    HiarError,
    Overloaded,
    PromptReplaced,
    Refused,
    RequestError,
    StartError,
    UnknownVideo,
    VideoFailed,
    WeightsError,
    WorkerLost,
)
from engine.fleet.fit import settled
from engine.forecast import assumed_site, gpu_site, host_site
from engine.front.handle import VideoHandle
from engine.front.log import InitSegment
from engine.front.reader import Reader
from engine.front.video import PromptMark, Recovery, VideoState, VideoStatus
from engine.law.fitting import room_for_videos
from engine.law.presets import BASE_FILES, NO_CHANGES, PRESETS, Layout, Preset, RolloutChanges, names_of_presets
from engine.law.rates import ASSUMED
from engine.law.schedule import VAE_TEMPORAL_STRIDE
from engine.law.verdict import Site, Verdict, judge
from engine.manifest import PARTIAL_NAME, published_manifest, read_manifest
from engine.messages import StartPhase, StartProgress
from engine.observe import LossReason, Observer, StartTimes
from engine.request import (
    Dtypes,
    EndReason,
    EngineFacts,
    EngineLoad,
    EngineState,
    FleetView,
    Fragment,
    Output,
    Pace,
    PromptAt,
    Quality,
    VideoRequest,
    WorkerLoad,
    WorkerMemoryFacts,
)
from engine.students import PRESET_NAME
from engine.trace import Phase, Rests, Span

__all__ = [
    "ASSUMED",
    "BASE_FILES",
    "DTYPES",
    "MAX_MASTER_PORT",
    "NARROW_DTYPES",
    "NO_CHANGES",
    "PARTIAL_NAME",
    "PRESETS",
    "PRESET_NAME",
    "SIDE_STEP_PX",
    "VAE_TEMPORAL_STRIDE",
    "BlockGone",
    "BlockTooEarly",
    "CorruptLatents",
    "DecoderKind",
    "Dtypes",
    "EncoderFailed",
    "EndReason",
    "Engine",
    "EngineConfig",
    "EngineFacts",
    "EngineLoad",
    "EngineOptions",
    "EngineOutOfMemory",
    "EngineState",
    "EngineUnavailable",
    "FleetView",
    "Fragment",
    "HiarError",
    "InitSegment",
    "Layout",
    "Lora",
    "LossReason",
    "Manifest",
    "Nodes",
    "Observer",
    "Order",
    "Output",
    "Overloaded",
    "Pace",
    "Phase",
    "Precision",
    "Preset",
    "PromptAt",
    "PromptMark",
    "PromptReplaced",
    "Quality",
    "Reader",
    "Recovery",
    "Refused",
    "RequestError",
    "Rests",
    "RolloutChanges",
    "Site",
    "Span",
    "StartError",
    "StartPhase",
    "StartProgress",
    "StartTimes",
    "UnknownVideo",
    "Verdict",
    "VideoFailed",
    "VideoHandle",
    "VideoRequest",
    "VideoState",
    "VideoStatus",
    "WeightsError",
    "WorkerLoad",
    "WorkerLost",
    "WorkerMemoryFacts",
    "assumed_site",
    "gpu_site",
    "host_site",
    "is_device",
    "judge",
    "names_of_presets",
    "published_manifest",
    "read_manifest",
    "room_for_videos",
    "run_agent",
    "settled",
]
