"""Every setting of the server: read once from flags and environment, checked, then frozen.

Knows no model file, no socket and no running engine; it says what was wrong with which key.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import MAX_MASTER_PORT, NO_CHANGES, EngineOptions, Lora, Nodes, Precision, RolloutChanges
from server.command_line import parser_of
from server.option import Option
from server.options import OPTIONS
from server.shipped import SMALL_MODEL


class SettingError(ValueError):
    """A setting has a value it cannot have; the message names key, value and expectation."""


@dataclass(frozen=True, kw_only=True)
class TransportLimits:
    """How long and how much one connection may take. The defaults hold for any deployment; tests shorten them."""

    body_bytes: int = 65_536
    header_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    send_timeout_s: float = 15.0
    """A client that takes nothing for this long of what is sent to it is cut off."""
    slow_window_s: float = 20.0
    """A viewer that takes less than half as much video as this plays in this time, though more waits, is cut off."""
    keep_alive_s: float = 10.0
    """An empty box is sent after this long without media, so that proxies keep the connection."""
    first_fragment_timeout_s: float = 120.0
    send_buffer_bytes: int = 262_144
    """Without it the kernel takes up to 4 MB, which is half a minute of video."""
    connections: int = 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can choose."""

    model: Path = SMALL_MODEL
    preset: str | None = None
    """What the model is; None is what its folder tells."""
    changes: RolloutChanges = NO_CHANGES
    """In place of the values of the model's roll-out."""
    loras: tuple[Lora, ...] = ()
    """Merged behind the preset's own."""
    decoder: str | None = None
    """``wan`` or ``tiny``; None is the model's own."""
    sizes: tuple[tuple[int, int], ...] | None = None
    """Picture sizes to serve (width_px, height_px); None is the model's own."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    """Port of `/metrics`; None is the same as the rest."""
    max_seconds: float | None = None
    """Longest video; also ends endless ones. None is no limit."""
    drain_timeout_s: float = 30.0
    assume: str | None = None
    """GPUs that a plan is made for; None is those that are here."""
    plan: bool = False
    """Print a plan and serve nothing."""
    list_presets: bool = False
    """Print the presets and serve nothing."""
    keys: Path | None = None
    """File of API keys; None is that no key is asked for."""
    new_key: str | None = None
    """Name of a key to make; serve nothing then."""
    insecure: bool = False
    """Serve other machines without keys."""
    allowed_hosts: tuple[str, ...] = ()
    """More names than loopback's and ``host`` that requests may call the server by."""
    cors_origins: tuple[str, ...] = ()
    """Origins of other web pages that may use it."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies that tell whom they speak for."""
    max_per_client: int = 8
    """Videos of one key, or of one address without keys, that run or wait."""
    data: str | None = None
    """Folder of what outlives the process, or ``memory`` for nothing; None is the user's own."""
    database: str | None = None
    """URL of a database in place of the folder's SQLite."""
    store: str | None = None
    """URL of the files of videos in place of the folder's."""
    advertise: str | None = None
    """Where other servers on the same database send readers of videos that this one makes; None: where it listens."""
    keep_hours: float = 24.0
    """How long ended durable videos are kept."""
    keep_bytes: int | None = None
    """How much of them; None is no limit."""
    max_upload: int = 32 * 2**20
    """Bytes of a body that holds a picture or a clip."""
    log_level: str = "info"
    log_format: str = "text"
    metrics_keep_s: float = 1.0
    """How long what `/metrics` told may be told again. Tests shorten it."""
    transport: TransportLimits = field(default_factory=TransportLimits)


_BY_NAME = {option.name: option for option in OPTIONS}

_LAUNCHERS = {
    "nnodes": ("NNODES", "WORLD_SIZE", "LWS_GROUP_SIZE"),
    "node_rank": ("NODE_RANK", "GROUP_RANK", "RANK", "LWS_WORKER_INDEX"),
    "master_addr": ("MASTER_ADDR", "LWS_LEADER_ADDRESS"),
    "master_port": ("MASTER_PORT",),
}
"""What torchrun, with one process a node, and LeaderWorkerSet call these settings. Ours win."""

_TORCHRUN_PORT_STEP = 10
"""Under torchrun its own store listens at MASTER_PORT; with this added, ours stay clear of it."""


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read settings from flags, then environment, then defaults. Raises ``SettingError`` at the first bad value."""
    defaults = {option.name: getattr(option.of or Settings, option.field) for option in OPTIONS if not option.default}
    flags = vars(parser_of(defaults).parse_args(arguments))
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        if flags[option.name] is not None:
            given = flags[option.name]
            text = ",".join(given) if option.repeats else given
            chosen[option.name] = _read(option, option.flag, text)
        elif option.env in environment:
            chosen[option.name] = _read(option, option.env, environment[option.env])
    chosen = _with_nodes(chosen, environment)
    return _settings(chosen, plan=flags["plan"], list_presets=flags["list_presets"])


def _settings(chosen: Mapping[str, Any], *, plan: bool, list_presets: bool) -> Settings:
    """Put what was chosen into the records that hold it. Raises ``SettingError`` where that does not go together."""
    held: dict[type | None, dict[str, Any]] = {
        record: {} for record in (None, EngineOptions, Precision, Nodes, RolloutChanges)
    }
    for name, value in chosen.items():
        option = _BY_NAME[name]
        held[option.of][option.field] = value
    try:
        nodes = Nodes(**held[Nodes]) if chosen.get("nnodes", 1) > 1 else None
        engine = EngineOptions(**held[EngineOptions], precision=Precision(**held[Precision]), nodes=nodes)
    except ValueError as error:
        raise SettingError(str(error)) from error
    changes = RolloutChanges(**held[RolloutChanges])
    return Settings(**held[None], changes=changes, engine=engine, plan=plan, list_presets=list_presets)


def _with_nodes(chosen: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Add what a launcher says of the nodes and was not chosen. Raises ``SettingError`` where that makes no sense."""
    processes = environment.get("LOCAL_WORLD_SIZE") or "1"
    if processes != "1":
        raise SettingError(
            f"LOCAL_WORLD_SIZE is {processes!r}; run one hiar-server process a node (torchrun --nproc-per-node 1): "
            "it starts a worker for each device itself"
        )
    settings = {**chosen, **_from_launcher("nnodes", chosen, environment)}
    num_nodes = settings.get("nnodes", 1)
    if num_nodes > 1:  # with one node, a launcher's other variables mean nothing here
        for name in ("node_rank", "master_addr", "master_port"):
            settings |= _from_launcher(name, chosen, environment)
        for option in (_BY_NAME["node_rank"], _BY_NAME["master_addr"]):
            if option.name not in settings:
                raise SettingError(f"there are {num_nodes} nodes and no {option.flag} ({option.help})")
    rank = settings.get("node_rank", 0)
    if rank >= num_nodes:
        raise SettingError(f"the node rank is {rank}; with --nnodes {num_nodes} expected 0..{num_nodes - 1}")
    return settings


def _from_launcher(name: str, chosen: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """One setting, if it was not chosen and a launcher tells it."""
    key = next((key for key in _LAUNCHERS[name] if environment.get(key)), None)
    if name in chosen or key is None:
        return {}
    value = _read(_BY_NAME[name], key, environment[key])
    return {name: _beside_torchrun(value, environment) if key == "MASTER_PORT" else value}


def _beside_torchrun(port: int, environment: Mapping[str, str]) -> int:
    """Our port for its MASTER_PORT, where torchrun's own store listens."""
    if "TORCHELASTIC_RUN_ID" not in environment and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return port
    if port + _TORCHRUN_PORT_STEP > MAX_MASTER_PORT:
        raise SettingError(
            f"MASTER_PORT is {port}; under torchrun expected 1..{MAX_MASTER_PORT - _TORCHRUN_PORT_STEP}, "
            "because workers meet at a port above it; or give --master-port"
        )
    return port + _TORCHRUN_PORT_STEP


def settings_from_process(arguments: Sequence[str]) -> Settings:
    """Read settings from ``arguments`` and this process's environment."""
    return read_settings(arguments, os.environ)


def _read(option: Option, key: str, text: str) -> Any:
    try:
        return option.read(text)
    except ValueError:
        raise SettingError(f"{key} is {text!r}; expected {option.expected}") from None
