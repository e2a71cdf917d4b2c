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
LOG_LEVELS = ("debug", "info", "warning", "error")


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
    devices: tuple[str, ...] = ("cpu",)
    host: str = "127.0.0.1"
    port: int = 8000
    max_sessions: int = 2
    max_queue: int = 8
    max_seconds: float | None = None
    """Longest video of one session; also ends endless ones. None is no limit."""
    drain_timeout_s: float = 30.0
    log_level: str = "info"
    transport: TransportLimits = field(default_factory=TransportLimits)


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One setting: how its text is read and what to tell when it cannot be."""

    name: str
    read: Callable[[str], Any]
    expected: str
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.removesuffix("_s").replace("_", "-")

    @property
    def metavar(self) -> str:
        return self.name.rpartition("_")[2].upper() if self.name != "drain_timeout_s" else "SECONDS"

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


def _level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(text)
    return text.lower()


_OPTIONS = (
    _Option(
        name="model", read=lambda text: Path(_word(text)), expected="a folder", help="folder of the model to serve"
    ),
    _Option(
        name="devices",
        read=_devices,
        expected="'cpu' or a list like 'cuda:0,cuda:1'",
        help="one worker a device, in chain order; this version takes one: cpu, or cuda:0",
    ),
    _Option(name="host", read=_word, expected="a host name or address", help="address to listen on"),
    _Option(name="port", read=_whole(0, 65535), expected="0..65535", help="port to listen on; 0 takes a free one"),
    _Option(
        name="max_sessions", read=_whole(1, 1024), expected="1..1024", help="videos that are generated at the same time"
    ),
    _Option(name="max_queue", read=_whole(0, 100_000), expected="0..100000", help="requests that may wait for a place"),
    _Option(
        name="max_seconds",
        read=_positive,
        expected="a number of seconds above 0",
        help="longest video a request may ask for; endless ones end there too",
    ),
    _Option(
        name="drain_timeout_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="on SIGTERM, seconds that running videos get to reach the end of their block",
    ),
    _Option(name="log_level", read=_level, expected=" or ".join(LOG_LEVELS), help="how much to log"),
)

_EXAMPLES = """\
examples:
  hiar-server                                      the small model on the CPU, at http://127.0.0.1:8000
  hiar-server --port 9000 --max-sessions 1         one video at a time
  hiar-server --model models/hiar --devices cuda:0 --host 0.0.0.0

Each flag can be given as an environment variable too: HIAR_PORT=9000 means --port 9000; a flag wins.
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
    return Settings(**chosen)


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
        help_text = f"{option.help} ({_shown(defaults[option.name])})"
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
