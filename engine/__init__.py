"""The pipelined engine. Callers use this facade only."""

from engine.config import SIDE_STEP_PX, DecoderKind, Manifest
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
from engine.front.story import Ended, Happening, Made, Prompted, Queued, Recovered, Recovering, Started
from engine.front.video import PromptMark, Recovery, VideoState, VideoStatus
from engine.law.fitting import room_for_videos
from engine.law.rates import ASSUMED
from engine.law.schedule import VAE_TEMPORAL_STRIDE
from engine.law.verdict import Site, Verdict, judge
from engine.manifest import PARTIAL_NAME, read_manifest
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
from engine.trace import Phase, Rests, Span

__all__ = [
    "ASSUMED",
    "DTYPES",
    "MAX_MASTER_PORT",
    "NARROW_DTYPES",
    "PARTIAL_NAME",
    "SIDE_STEP_PX",
    "VAE_TEMPORAL_STRIDE",
    "BlockGone",
    "BlockTooEarly",
    "CorruptLatents",
    "DecoderKind",
    "Dtypes",
    "EncoderFailed",
    "EndReason",
    "Ended",
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
    "Happening",
    "HiarError",
    "InitSegment",
    "LossReason",
    "Made",
    "Manifest",
    "Nodes",
    "Observer",
    "Output",
    "Overloaded",
    "Pace",
    "Phase",
    "Precision",
    "PromptAt",
    "PromptMark",
    "PromptReplaced",
    "Prompted",
    "Quality",
    "Queued",
    "Reader",
    "Recovered",
    "Recovering",
    "Recovery",
    "Refused",
    "RequestError",
    "Rests",
    "Site",
    "Span",
    "StartError",
    "StartPhase",
    "StartProgress",
    "StartTimes",
    "Started",
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
    "read_manifest",
    "room_for_videos",
    "run_agent",
    "settled",
]
