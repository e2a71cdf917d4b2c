"""The pipelined engine. Callers use this facade only."""

from engine.config import EngineConfig, Manifest, Nodes
from engine.errors import (
    CorruptLatents,
    EncoderFailed,
    EngineOutOfMemory,
    EngineUnavailable,
    HiarError,
    Overloaded,
    Refused,
    RequestError,
    SessionFailed,
    StartError,
    UnknownSession,
    WeightsError,
    WorkerLost,
)
from engine.front.engine import Engine, run_agent
from engine.front.session import Recovery, Session, SessionState, SessionStatus
from engine.manifest import read_manifest
from engine.request import (
    EndReason,
    EngineFacts,
    EngineLoad,
    EngineState,
    Fragment,
    Output,
    Pace,
    PromptAt,
    Quality,
    SessionRequest,
)

__all__ = [
    "CorruptLatents",
    "EncoderFailed",
    "EndReason",
    "Engine",
    "EngineConfig",
    "EngineFacts",
    "EngineLoad",
    "EngineOutOfMemory",
    "EngineState",
    "EngineUnavailable",
    "Fragment",
    "HiarError",
    "Manifest",
    "Nodes",
    "Output",
    "Overloaded",
    "Pace",
    "PromptAt",
    "Quality",
    "Recovery",
    "Refused",
    "RequestError",
    "Session",
    "SessionFailed",
    "SessionRequest",
    "SessionState",
    "SessionStatus",
    "StartError",
    "UnknownSession",
    "WeightsError",
    "WorkerLost",
    "read_manifest",
    "run_agent",
]
