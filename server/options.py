"""The settings an operator can give: flag, environment variable, how the text is read, and what ``--help`` says.

Knows neither where a setting is used nor which was given, only which record holds it.
"""

from math import isfinite
from pathlib import Path

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
from server.access_options import ACCESS_OPTIONS
from server.option import Option, not_negative, one_of, positive, whole, word
from server.store_options import STORE_OPTIONS

MAX_SIDE_PX = 4096
MAX_STEP = 1000
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


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
    return tuple(_lora(word(part)) for part in text.split(","))


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


OPTIONS = (
    Option(
        name="model",
        read=lambda text: Path(word(text)),
        expected="a folder",
        help="folder of the model to serve",
        default="default: the small model that ships with the server",
    ),
    Option(
        name="preset",
        read=one_of(tuple(PRESETS)),
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
        read=positive,
        expected="a number above 0",
        help="how far noise levels are shifted, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="window",
        of=RolloutChanges,
        named="window_latent_frames",
        read=whole(1, 10_000),
        expected="1..10000 latent frames, whole blocks",
        help="latent frames that a block attends to, its own and sinks included, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="sink",
        of=RolloutChanges,
        named="sink_latent_frames",
        read=whole(0, 10_000),
        expected="0..10000 latent frames, whole blocks",
        help="first latent frames that stay in the window for ever, in place of the preset's",
        default="default: the preset's",
    ),
    Option(
        name="order",
        of=RolloutChanges,
        read=lambda text: Order(one_of(tuple(Order))(text)),
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
        read=one_of(tuple(DecoderKind)),
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
        read=one_of(DTYPES),
        expected=" or ".join(DTYPES),
        help="type of weights and activations; auto is the model's own on GPUs, and on CPUs float32, or bfloat16 "
        "where that alone has room",
    ),
    Option(name="host", read=word, expected="a host name or address", help="address to listen on"),
    Option(name="port", read=whole(0, 65535), expected="0..65535", help="port to listen on; 0 takes a free one"),
    Option(
        name="metrics_port",
        read=whole(0, 65535),
        expected="0..65535",
        help="port for /metrics alone; 0 takes a free one",
        default="default: /metrics is on --port",
    ),
    Option(
        name="max_videos",
        of=EngineOptions,
        read=whole(1, 1024),
        expected="1..1024",
        help="videos a chain makes at the same time; realtime ones also wait until it is fast enough for all of them",
    ),
    Option(
        name="max_queue",
        of=EngineOptions,
        read=whole(0, 100_000),
        expected="0..100000",
        help="requests that may wait for a place",
    ),
    Option(
        name="max_seconds",
        read=positive,
        expected="a number of seconds above 0",
        help="longest video a request may ask for; endless ones end there too",
    ),
    Option(
        name="lead_target_s",
        of=EngineOptions,
        read=positive,
        expected="a number of seconds above 0",
        help="a realtime video is made at most this far ahead of its viewer",
    ),
    Option(
        name="start_timeout_s",
        of=EngineOptions,
        read=positive,
        expected="a number of seconds above 0",
        help="how long loading, measuring and warming up may take before the start has failed",
    ),
    Option(
        name="stage_timeout_s",
        of=EngineOptions,
        read=positive,
        expected="a number of seconds above 0",
        help="a worker that has work and makes no progress for this long is replaced, and so is a silent node",
    ),
    Option(
        name="recovery_grace_s",
        of=EngineOptions,
        read=positive,
        expected="a number of seconds above 0",
        help="how long running videos wait for lost workers to be replaced",
    ),
    Option(
        name="keep_seconds",
        of=EngineOptions,
        named="keep_s",
        read=not_negative,
        expected="a number of seconds, 0 or more",
        help="how long an ended video still answers and can be read, while there is memory for it",
    ),
    Option(
        name="drain_timeout_s",
        read=positive,
        expected="a number of seconds above 0",
        help="on SIGTERM, seconds that running videos get to reach the end of their block",
    ),
    Option(
        name="kv_dtype",
        of=Precision,
        read=one_of(NARROW_DTYPES["kv_dtype"]),
        expected=" or ".join(NARROW_DTYPES["kv_dtype"]),
        help="type of the keys and values of earlier blocks: fp8 about halves them, so that the same memory holds "
        "about twice the videos; it changes the pictures",
    ),
    Option(
        name="linear_dtype",
        of=Precision,
        read=one_of(NARROW_DTYPES["linear_dtype"]),
        expected=" or ".join(NARROW_DTYPES["linear_dtype"]),
        help="type of most products with weights: fp8 halves those weights; it changes the pictures",
    ),
    Option(
        name="attention_dtype",
        of=Precision,
        read=one_of(NARROW_DTYPES["attention_dtype"]),
        expected=" or ".join(NARROW_DTYPES["attention_dtype"]),
        help="type of the products of queries and keys; int8 changes the pictures",
    ),
    Option(
        name="nnodes",
        of=Nodes,
        named="num_nodes",
        default="default: 1",
        read=whole(1, 1024),
        expected="1..1024",
        help="hosts that share one engine",
    ),
    Option(
        name="node_rank",
        of=Nodes,
        named="rank",
        read=whole(0, 1023),
        expected="0..1023",
        help="which of them this is: 0 serves HTTP, the others lend it their devices",
        default="needed with several nodes",
    ),
    Option(
        name="master_addr",
        of=Nodes,
        read=word,
        expected="a host name or address",
        help="host of node 0, as the others reach it",
        default="needed with several nodes",
    ),
    Option(
        name="master_port",
        of=Nodes,
        read=whole(1, MAX_MASTER_PORT),
        expected=f"1..{MAX_MASTER_PORT}",
        help="port where workers of several nodes meet; nodes meet at the next one",
    ),
    Option(
        name="assume",
        read=one_of(tuple(ASSUMED)),
        expected=" or ".join(ASSUMED),
        help="with --plan: GPUs to plan for, one for each of --devices",
        default="default: those that are here",
    ),
    *ACCESS_OPTIONS,
    *STORE_OPTIONS,
    Option(name="log_level", read=one_of(LOG_LEVELS), expected=" or ".join(LOG_LEVELS), help="how much to log"),
    Option(
        name="log_format",
        read=one_of(LOG_FORMATS),
        expected=" or ".join(LOG_FORMATS),
        help="lines for people, or a JSON object a line",
    ),
)
