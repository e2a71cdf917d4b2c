"""The settings an operator can give: flag, environment variable, how the text is read, and what ``--help`` says.

Knows neither where a setting is used nor which was given, only which record holds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from engine import (
    ASSUMED,
    DTYPES,
    MAX_MASTER_PORT,
    NARROW_DTYPES,
    PRESETS,
    SIDE_STEP_PX,
    DecoderKind,
    EngineOptions,
    Lora,
    Nodes,
    Order,
    Precision,
    RolloutChanges,
    is_device,
)

ENV_PREFIX = "HIAR_"
ROOT = Path(__file__).resolve().parents[1]
MAX_SIDE_PX = 4096
MAX_STEP = 1000
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting: how its text is read and what to tell when it cannot be."""

    name: str
    read: Callable[[str], Any]
    expected: str
    help: str
    default: str | None = None
    """What the help says in place of the default's value."""
    of: type | None = None
    """The record that holds it; None is ``Settings``."""
    named: str | None = None
    """Its name there, where that is another."""
    repeats: bool = False
    """Whether the flag may be given several times, each with one or more values of a list."""

    @property
    def field(self) -> str:
        """Its name in the record that holds it."""
        return self.named or self.name

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.removesuffix("_s").replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        return "SECONDS" if self.name.endswith("_s") else self.name.rpartition("_")[2].upper()

    @property
    def env(self) -> str:
        """As an environment variable."""
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


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _devices(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(map(is_device, names)):
        raise ValueError(text)
    return names


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    sizes = []
    for name in text.split(","):
        width_px, _, height_px = name.strip().lower().partition("x")
        sizes.append((int(width_px), int(height_px)))
    if not all(0 < side <= MAX_SIDE_PX and side % SIDE_STEP_PX == 0 for size in sizes for side in size):
        raise ValueError(text)
    return tuple(sizes)


def _steps(text: str) -> tuple[int, ...]:
    steps = tuple(int(step) for step in text.split(","))
    if not all(0 < step <= MAX_STEP for step in steps) or list(steps) != sorted(set(steps), reverse=True):
        raise ValueError(text)
    return steps


def _loras(text: str) -> tuple[Lora, ...]:
    return tuple(_lora(_word(part)) for part in text.split(","))


def _lora(text: str) -> Lora:
    """``FILE``, or ``FILE:SCALE``."""
    file, colon, scale = text.rpartition(":")
    if not colon:
        return Lora(file=Path(text))
    value = float(scale)
    if not file or not isfinite(value):
        raise ValueError(text)
    return Lora(file=Path(file), scale=value)


def _text_device(text: str) -> str:
    name = text.strip()
    if name != "auto" and not is_device(name):
        raise ValueError(text)
    return name


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


OPTIONS = (
    Option(name="model", read=lambda text: Path(_word(text)), expected="a folder", help="folder of the model to serve"),
    Option(
        name="preset",
        read=_one_of(tuple(PRESETS)),
        expected=f"one of {', '.join(PRESETS)}",
        help="the public checkpoint that the model is, or was trained as: it says the order, the steps and the window; "
        "--list-presets tells more",
        default="default: what the folder tells",
    ),
    Option(
        name="steps",
        of=RolloutChanges,
        named="denoising_steps",
        read=_steps,
        expected=f"a falling list like 1000,750,500,250, each 1..{MAX_STEP}",
        help="denoising steps in place of the preset's, as its own configuration would write them",
        default="default: the preset's",
    ),
    Option(
        name="shift",
        of=RolloutChanges,
        named="timestep_shift",
        read=_positive,
        expected="a number above 0",
        help="how far noise levels are shifted, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="window",
        of=RolloutChanges,
        named="window_latent_frames",
        read=_whole(1, 10_000),
        expected="1..10000 latent frames, whole blocks",
        help="latent frames that a block attends to, its own and sinks included, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="sink",
        of=RolloutChanges,
        named="sink_latent_frames",
        read=_whole(0, 10_000),
        expected="0..10000 latent frames, whole blocks",
        help="first latent frames that stay in the window for ever, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="order",
        of=RolloutChanges,
        read=lambda text: Order(_one_of(tuple(Order))(text)),
        expected=" or ".join(Order),
        help="whether all steps of a block come before the next block, or the same step of all blocks before the next "
        "step, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="lora",
        named="loras",
        read=_loras,
        expected="a list of FILE or FILE:SCALE",
        help="low-rank changes to merge into the transformer, as FILE or FILE:SCALE; several by several flags or "
        "commas",
        default="default: the preset's alone",
        repeats=True,
    ),
    Option(
        name="decoder",
        read=_one_of(tuple(DecoderKind)),
        expected=" or ".join(DecoderKind),
        help="what turns latents into pictures: wan is faithful, tiny is many times faster and less sharp; the model's "
        "folder must hold it",
        default="default: the model's own",
    ),
    Option(
        name="devices",
        of=EngineOptions,
        read=_devices,
        expected="'cpu' or a list like 'cuda:0,cuda:1'",
        help="one worker a device, in chain order; name cpu several times to run a pipeline without GPUs",
    ),
    Option(
        name="sizes",
        read=_sizes,
        expected=f"a list like 832x480,480x832, sides multiples of {SIDE_STEP_PX}",
        help="picture sizes to serve, the first by default; memory is taken for the largest. A size that the model was "
        "not trained for looks worse",
        default="default: the model's own",
    ),
    Option(
        name="text_device",
        of=EngineOptions,
        read=_text_device,
        expected="auto, cpu or a device like cuda:0",
        help="where prompts are embedded: cpu keeps the text encoder in the host's memory and takes seconds a prompt; "
        "auto does so only where no device has room",
    ),
    Option(
        name="dtype",
        of=EngineOptions,
        read=_one_of(DTYPES),
        expected=" or ".join(DTYPES),
        help="type of weights and activations; auto is the model's own on GPUs, and on CPUs float32, or bfloat16 "
        "where that alone has room",
    ),
    Option(name="host", read=_word, expected="a host name or address", help="address to listen on"),
    Option(name="port", read=_whole(0, 65535), expected="0..65535", help="port to listen on; 0 takes a free one"),
    Option(
        name="metrics_port",
        read=_whole(0, 65535),
        expected="0..65535",
        help="port for /metrics alone; 0 takes a free one",
        default="default: /metrics is on --port",
    ),
    Option(
        name="max_videos",
        of=EngineOptions,
        read=_whole(1, 1024),
        expected="1..1024",
        help="videos a chain makes at the same time; realtime ones also wait until it is fast enough for all of them",
    ),
    Option(
        name="max_queue",
        of=EngineOptions,
        read=_whole(0, 100_000),
        expected="0..100000",
        help="requests that may wait for a place",
    ),
    Option(
        name="max_seconds",
        read=_positive,
        expected="a number of seconds above 0",
        help="longest video a request may ask for; endless ones end there too",
    ),
    Option(
        name="lead_target_s",
        of=EngineOptions,
        read=_positive,
        expected="a number of seconds above 0",
        help="a realtime video is made at most this far ahead of its viewer",
    ),
    Option(
        name="start_timeout_s",
        of=EngineOptions,
        read=_positive,
        expected="a number of seconds above 0",
        help="how long loading, measuring and warming up may take before the start has failed",
    ),
    Option(
        name="stage_timeout_s",
        of=EngineOptions,
        read=_positive,
        expected="a number of seconds above 0",
        help="a worker that has work and makes no progress for this long is replaced, and so is a silent node",
    ),
    Option(
        name="recovery_grace_s",
        of=EngineOptions,
        read=_positive,
        expected="a number of seconds above 0",
        help="how long running videos wait for lost workers to be replaced",
    ),
    Option(
        name="keep_seconds",
        of=EngineOptions,
        named="keep_s",
        read=_not_negative,
        expected="a number of seconds, 0 or more",
        help="how long an ended video still answers and can be read, while there is memory for it",
    ),
    Option(
        name="drain_timeout_s",
        read=_positive,
        expected="a number of seconds above 0",
        help="on SIGTERM, seconds that running videos get to reach the end of their block",
    ),
    Option(
        name="kv_dtype",
        of=Precision,
        read=_one_of(NARROW_DTYPES["kv_dtype"]),
        expected=" or ".join(NARROW_DTYPES["kv_dtype"]),
        help="type of the keys and values of earlier blocks: fp8 about halves them, so that the same memory holds "
        "about twice the videos; it changes the pictures",
    ),
    Option(
        name="linear_dtype",
        of=Precision,
        read=_one_of(NARROW_DTYPES["linear_dtype"]),
        expected=" or ".join(NARROW_DTYPES["linear_dtype"]),
        help="type of most products with weights: fp8 halves those weights; it changes the pictures",
    ),
    Option(
        name="attention_dtype",
        of=Precision,
        read=_one_of(NARROW_DTYPES["attention_dtype"]),
        expected=" or ".join(NARROW_DTYPES["attention_dtype"]),
        help="type of the products of queries and keys; int8 changes the pictures",
    ),
    Option(
        name="nnodes",
        of=Nodes,
        named="num_nodes",
        default="default: 1",
        read=_whole(1, 1024),
        expected="1..1024",
        help="hosts that share one engine",
    ),
    Option(
        name="node_rank",
        of=Nodes,
        named="rank",
        read=_whole(0, 1023),
        expected="0..1023",
        help="which of them this is: 0 serves HTTP, the others lend it their devices",
        default="needed with several nodes",
    ),
    Option(
        name="master_addr",
        of=Nodes,
        read=_word,
        expected="a host name or address",
        help="host of node 0, as the others reach it",
        default="needed with several nodes",
    ),
    Option(
        name="master_port",
        of=Nodes,
        read=_whole(1, MAX_MASTER_PORT),
        expected=f"1..{MAX_MASTER_PORT}",
        help="port where workers of several nodes meet; nodes meet at the next one",
    ),
    Option(
        name="assume",
        read=_one_of(tuple(ASSUMED)),
        expected=" or ".join(ASSUMED),
        help="with --plan: GPUs to plan for, one for each of --devices",
        default="default: those that are here",
    ),
    Option(name="log_level", read=_one_of(LOG_LEVELS), expected=" or ".join(LOG_LEVELS), help="how much to log"),
)
