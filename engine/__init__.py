"""The pipelined engine. Callers use this facade only."""

from engine.config import EngineConfig, Manifest
from engine.errors import (
    CorruptLatents,
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
from engine.front.engine import Engine
from engine.front.session import Session, SessionState, SessionStatus
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
    "EndReason",
    "Engine",
    "EngineConfig",
    "EngineFacts",
    "EngineLoad",
    "EngineState",
    "EngineUnavailable",
    "Fragment",
    "HiarError",
    "Manifest",
    "Output",
    "Overloaded",
    "Pace",
    "PromptAt",
    "Quality",
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
]
