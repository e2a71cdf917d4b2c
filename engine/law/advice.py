"""Which flags make a model fit: the least harmful first, tried one after the other by a rule that is handed in.

Fewer videos cost places only, a text encoder on the host seconds a prompt; 8 bits, the tiny decoder and smaller
pictures change what is seen. Knows no device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from engine.config import DecoderConfig
from engine.engine_config import EngineConfig, Precision
from engine.law.memory import most_tokens

SMALLER_PX = ((416, 240), (208, 112), (64, 64))
"""Sizes to fall back to where none of the model's own fits; it was not trained for them."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be advised."""

    tiny_decoder: DecoderConfig | None
    """The tiny decoder that the model's folder holds beside its own."""
    fp8_pages: bool
    """Whether the devices can hold pages in 8 bits."""
    host_text: bool
    """Whether the text encoder could move to the host's memory."""


@dataclass(frozen=True)
class Step:
    """A change of settings and the flags that ask for it."""

    flags: str
    config: EngineConfig


def advise(config: EngineConfig, choices: Choices, fits: Callable[[EngineConfig], bool]) -> str | None:
    """The flags that make it fit, to be put behind the command as it is; None if nothing does."""
    steps = (step for step in _steps(config, choices) if step.flags)
    return next((step.flags for step in steps if fits(step.config)), None)


def _steps(config: EngineConfig, choices: Choices) -> Iterator[Step]:
    for sized in _by_sizes(Step("", config)):
        for decoded in _by_decoder(sized, choices):
            for paged in _by_pages(decoded, choices):
                for typed in _by_dtype(paged):
                    for texted in _by_text(typed, choices):
                        yield from _by_videos(texted)


def _by_sizes(step: Step) -> Iterator[Step]:
    """All sizes; then each alone that is smaller than the largest, then sizes smaller than all."""
    yield step
    manifest, most = step.config.manifest, most_tokens(step.config)
    own = sorted(manifest.video.sizes, key=lambda size: -size[0] * size[1])
    for width_px, height_px in dict.fromkeys((*own, *SMALLER_PX)):
        video = replace(manifest.video, sizes=((width_px, height_px),))
        smaller = replace(step.config, manifest=replace(manifest, video=video))
        if most_tokens(smaller) < most:
            yield Step(f"{step.flags} --sizes {width_px}x{height_px}".strip(), smaller)


def _by_text(step: Step, choices: Choices) -> Iterator[Step]:
    yield step
    if choices.host_text and step.config.text_device not in {"auto", "cpu"}:
        yield Step(f"{step.flags} --text-device cpu".strip(), replace(step.config, text_device="cpu"))


def _by_dtype(step: Step) -> Iterator[Step]:
    yield step
    if step.config.dtype_name == "float32" and step.config.manifest.dtype == "bfloat16":
        yield Step(f"{step.flags} --dtype bfloat16".strip(), replace(step.config, dtype="bfloat16"))


def _by_decoder(step: Step, choices: Choices) -> Iterator[Step]:
    yield step
    own, tiny = step.config.manifest.decoder, choices.tiny_decoder
    if own is not None and tiny is not None and own.kind != tiny.kind:
        manifest = replace(step.config.manifest, decoder=tiny)
        yield Step(f"{step.flags} --decoder tiny".strip(), replace(step.config, manifest=manifest))


def _by_pages(step: Step, choices: Choices) -> Iterator[Step]:
    yield step
    precision = step.config.precision
    if choices.fp8_pages and not precision.fp8_pages:
        narrow = Precision(
            kv_dtype="fp8", linear_dtype=precision.linear_dtype, attention_dtype=precision.attention_dtype
        )
        yield Step(f"{step.flags} --kv-dtype fp8".strip(), replace(step.config, precision=narrow))


def _by_videos(step: Step) -> Iterator[Step]:
    yield step
    for count in range(step.config.max_videos - 1, 0, -1):
        yield Step(f"{step.flags} --max-videos {count}".strip(), replace(step.config, max_videos=count))
