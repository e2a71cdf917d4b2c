"""Every setting of the server: read once from flags and environment, checked, then frozen.

Knows no model file, no socket and no engine; it says what was wrong with which key.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ENV_PREFIX = "HIAR_"
ROOT = Path(__file__).resolve().parents[1]
_MAX_MASTER_PORT = 65534
"""The port after it is used too."""
LOG_LEVELS = ("debug", "info", "warning", "error")
DECODERS = ("wan", "tiny")


class SettingError(ValueError):
    """A setting has a value it cannot have; the message names key, value and expectation."""


@dataclass(frozen=True, kw_only=True)
class TransportLimits:
    """How long and how much one connection may take. The defaults hold for any deployment; tests shorten them."""

    body_bytes: int = 65_536
    header_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    send_timeout_s: float = 15.0
    """A reader that takes nothing for this long is cut off."""
    keep_alive_s: float = 10.0
    """An empty box is sent after this long without media, so that proxies keep the connection."""
    first_fragment_timeout_s: float = 120.0
    send_buffer_bytes: int = 262_144
    """Without it the kernel takes up to 4 MB, which is half a minute of video."""
    connections: int = 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can choose."""

    model: Path = ROOT / "models" / "tiny"
    decoder: str | None = None
    """``wan`` or ``tiny``; None is the model's own."""
    devices: tuple[str, ...] = ("cpu",)
    host: str = "127.0.0.1"
    port: int = 8000
    max_sessions: int = 2
    max_queue: int = 8
    max_seconds: float | None = None
    """Longest video of one session; also ends endless ones. None is no limit."""
    lead_target_s: float = 3.0
    stage_timeout_s: float = 20.0
    recovery_grace_s: float = 60.0
    drain_timeout_s: float = 30.0
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = ""
    """Empty only with one node."""
    master_port: int = 29500
    log_level: str = "info"
    transport: TransportLimits = field(default_factory=TransportLimits)


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One setting: how its text is read and what to tell when it cannot be."""

    name: str
    read: Callable[[str], Any]
    expected: str
    help: str
    default: str | None = None
    """What the help says in place of the default's value."""

    @property
    def flag(self) -> str:
        return "--" + self.name.removesuffix("_s").replace("_", "-")

    @property
    def metavar(self) -> str:
        return "SECONDS" if self.name.endswith("_s") else self.name.rpartition("_")[2].upper()

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.removesuffix("_s").upper()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _devices(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name != "cpu" and not (name.startswith("cuda:") and name[5:].isdecimal()):
            raise ValueError(text)
    return names


def _word(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text.strip()


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return read


_OPTIONS = (
    _Option(
        name="model", read=lambda text: Path(_word(text)), expected="a folder", help="folder of the model to serve"
    ),
    _Option(
        name="decoder",
        read=_one_of(DECODERS),
        expected=" or ".join(DECODERS),
        help="what turns latents into pictures: wan is faithful, tiny is many times faster and less sharp; the model's "
        "folder must hold it",
        default="default: the model's own",
    ),
    _Option(
        name="devices",
        read=_devices,
        expected="'cpu' or a list like 'cuda:0,cuda:1'",
        help="one worker a device, in chain order; name cpu several times to run a pipeline without GPUs",
    ),
    _Option(name="host", read=_word, expected="a host name or address", help="address to listen on"),
    _Option(name="port", read=_whole(0, 65535), expected="0..65535", help="port to listen on; 0 takes a free one"),
    _Option(
        name="max_sessions",
        read=_whole(1, 1024),
        expected="1..1024",
        help="videos a chain makes at the same time; realtime ones also wait until it is fast enough for all of them",
    ),
    _Option(name="max_queue", read=_whole(0, 100_000), expected="0..100000", help="requests that may wait for a place"),
    _Option(
        name="max_seconds",
        read=_positive,
        expected="a number of seconds above 0",
        help="longest video a request may ask for; endless ones end there too",
    ),
    _Option(
        name="lead_target_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="a realtime video is made at most this far ahead of its viewer",
    ),
    _Option(
        name="stage_timeout_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="a worker that has work and makes no progress for this long is replaced, and so is a silent node",
    ),
    _Option(
        name="recovery_grace_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="how long running videos wait for lost workers to be replaced",
    ),
    _Option(
        name="drain_timeout_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="on SIGTERM, seconds that running videos get to reach the end of their block",
    ),
    _Option(name="nnodes", read=_whole(1, 1024), expected="1..1024", help="hosts that share one engine"),
    _Option(
        name="node_rank",
        read=_whole(0, 1023),
        expected="0..1023",
        help="which of them this is: 0 serves HTTP, the others lend it their devices",
        default="needed with several nodes",
    ),
    _Option(
        name="master_addr",
        read=_word,
        expected="a host name or address",
        help="host of node 0, as the others reach it",
        default="needed with several nodes",
    ),
    _Option(
        name="master_port",
        read=_whole(1, _MAX_MASTER_PORT),
        expected=f"1..{_MAX_MASTER_PORT}",
        help="port where workers of several nodes meet; nodes meet at the next one",
    ),
    _Option(name="log_level", read=_one_of(LOG_LEVELS), expected=" or ".join(LOG_LEVELS), help="how much to log"),
)

_BY_NAME = {option.name: option for option in _OPTIONS}

_LAUNCHERS = {
    "nnodes": ("NNODES", "WORLD_SIZE", "LWS_GROUP_SIZE"),
    "node_rank": ("NODE_RANK", "GROUP_RANK", "RANK", "LWS_WORKER_INDEX"),
    "master_addr": ("MASTER_ADDR", "LWS_LEADER_ADDRESS"),
    "master_port": ("MASTER_PORT",),
}
"""What torchrun, with one process a node, and LeaderWorkerSet call these settings. Ours win."""

_TORCHRUN_PORT_STEP = 10
"""Under torchrun its own store listens at MASTER_PORT; with this added, ours stay clear of it."""

_EXAMPLES = """\
examples:
  hiar-server                                      the small model on the CPU, at http://127.0.0.1:8000
  hiar-server --devices cpu,cpu,cpu,cpu            the same as a pipeline of four processes
  hiar-server --port 9000 --max-sessions 1         one video at a time
  hiar-server --model models/hiar --devices cuda:0,cuda:1,cuda:2,cuda:3 --host 0.0.0.0

two hosts, the first at 10.9.0.1; requests go to the first:
  hiar-server --nnodes 2 --node-rank 0 --master-addr 10.9.0.1 --devices cuda:0,cuda:1 --host 0.0.0.0
  hiar-server --nnodes 2 --node-rank 1 --master-addr 10.9.0.1 --devices cuda:0,cuda:1

Each flag can be given as an environment variable too: HIAR_PORT=9000 means --port 9000; a flag wins.
torchrun --nproc-per-node 1 and LeaderWorkerSet set number, rank and master of the nodes by their own variables.
Between hosts, messages are not encrypted: use a network you trust. HIAR_GROUP_TOKEN, the same word on all of them,
keeps the hosts of two groups apart.
SIGTERM or Ctrl-C ends running videos at the end of their block; a second one ends at once.
"""


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read settings from flags, then environment, then defaults. Raises ``SettingError`` at the first bad value."""
    flags = vars(_parser().parse_args(arguments))
    chosen: dict[str, Any] = {}
    for option in _OPTIONS:
        if flags[option.name] is not None:
            chosen[option.name] = _read(option, option.flag, flags[option.name])
        elif option.env in environment:
            chosen[option.name] = _read(option, option.env, environment[option.env])
    return Settings(**_with_nodes(chosen, environment))


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
    if port + _TORCHRUN_PORT_STEP > _MAX_MASTER_PORT:
        raise SettingError(
            f"MASTER_PORT is {port}; under torchrun expected 1..{_MAX_MASTER_PORT - _TORCHRUN_PORT_STEP}, "
            "because workers meet at a port above it; or give --master-port"
        )
    return port + _TORCHRUN_PORT_STEP


def settings_from_process(arguments: Sequence[str]) -> Settings:
    """Read settings from ``arguments`` and this process's environment."""
    return read_settings(arguments, os.environ)


def _read(option: _Option, key: str, text: str) -> Any:
    try:
        return option.read(text)
    except ValueError:
        raise SettingError(f"{key} is {text!r}; expected {option.expected}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hiar-server",
        description="Generate endless video from prompts and stream it over HTTP while it is being made.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    defaults = {item.name: item.default for item in fields(Settings)}
    for option in _OPTIONS:
        help_text = f"{option.help} ({option.default or _shown(defaults[option.name])})"
        parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, help=help_text.replace("%", "%%"))
    return parser


def _shown(default: Any) -> str:
    if default is None:
        return "default: no limit"
    if isinstance(default, tuple):
        return f"default: {','.join(default)}"
    if isinstance(default, Path):
        return f"default: {default.relative_to(ROOT)}"
    return f"default: {default:g}" if isinstance(default, float) else f"default: {default}"
