"""Roll-outs that somebody else's code recorded: what their files say, as this project's configs.

Two layouts. A folder of one model in plain names records both orders of one roll-out. A folder of a public checkpoint
has the checkpoint in its real place and layout, and any number of roll-outs by name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine import Manifest
from engine.config import (
    LATENT_STRIDE_PX,
    Lora,
    Order,
    PromptEffect,
    RolloutConfig,
    SinkPositions,
    TransformerConfig,
    Transition,
    VideoConfig,
)
from engine.law.schedule import first_latent_frame

TRANSFORMER_KEYS = ("dim", "ffn_dim", "freq_dim", "text_dim", "text_len", "num_heads", "num_layers", "in_dim")
TENSORS_FILE = "rollout.safetensors"
_TRANSITIONS = {"renoise": Transition.RE_NOISE, "ode": Transition.ODE}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One roll-out, and the model that made it."""

    name: str
    """What its tensors' names begin with."""
    manifest: Manifest
    """It stops at latents."""
    num_frames: int
    """Latent frames of the whole video."""
    initial_frames: int
    """Latent frames that are given."""
    noise_start: int
    """Latent frame that takes the first row of the noise tensors: initial frames may have none."""
    contexts: Mapping[int, str]
    """Names of the prompts' tensors, by the first block that follows each."""

    @property
    def rollout(self) -> RolloutConfig:
        """What the model was trained to do."""
        return self.manifest.rollout

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole video."""
        return self.blocks_before(self.num_frames)

    def blocks_before(self, frame: int) -> int:
        """Blocks that end at or before a latent frame. Raises ``ValueError`` if it splits one."""
        block = 0
        while first_latent_frame(self.rollout, block) < frame:
            block += 1
        if first_latent_frame(self.rollout, block) != frame:
            raise ValueError(f"{self.name}: latent frame {frame} splits a block")
        return block


def recorded_rollouts(folder: Path, config: Mapping[str, Any]) -> Iterator[Recorded]:
    """Everything that ``config.json`` of a folder names. Raises ``ValueError`` on what this project cannot run."""
    if "rollouts" not in config:
        for order in Order:
            yield _recorded(folder, config, order, {**config, "order": order})
        return
    for name, entry in config["rollouts"].items():
        yield _recorded(folder, config, name, entry)


def _recorded(folder: Path, config: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> Recorded:
    rollout = _rollout(entry)
    initial = entry.get("initial_frames", 0)
    one = Recorded(
        name=name,
        manifest=_manifest(folder, config, rollout),
        num_frames=entry["frames"],
        initial_frames=initial,
        noise_start=entry.get("noise_starts_at_frame", 0),
        contexts={0: entry.get("context", "context")},
    )
    switch = entry.get("switch")
    if switch is None:
        return one
    at = one.blocks_before(switch["from_frame"])
    return replace(one, contexts={**one.contexts, at: switch["context"]})


def _rollout(entry: Mapping[str, Any]) -> RolloutConfig:
    order, clean = Order(entry["order"]), entry.get("cached_context") == "clean"
    first = entry.get("first_block_denoising_steps")
    return RolloutConfig(
        denoising_steps=_steps(entry["denoising_steps"], entry),
        first_block_steps=None if first is None else _steps(first, entry),
        raw_steps=entry.get("steps_are", "nominal") == "raw",
        timestep_shift=entry["timestep_shift"],
        latent_frames_per_block=entry["frames_per_block"],
        first_block_latent_frames=1 if entry.get("independent_first_frame") else None,
        window_latent_frames=entry["window_frames"],
        sink_latent_frames=entry["sink_frames"],
        sink_positions=SinkPositions(entry.get("positions", SinkPositions.ABSOLUTE)),
        context_timestep=entry["context_timestep"],
        clean_context=clean and order == Order.STEP_FIRST,
        transition=_TRANSITIONS[entry.get("transition", "renoise")],
        order=order,
        block_first_blocks=entry.get("block_first_blocks", 0),
        prompt_change=_prompt_effect(entry.get("switch")),
    )


def _steps(steps: list[int], entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Without the final 0 that some configurations end with and their loops drop."""
    return tuple(steps[:-1] if entry.get("last_step_is_dropped") and steps[-1] == 0 else steps)


def _prompt_effect(switch: Mapping[str, Any] | None) -> PromptEffect:
    if switch is None or "recached_frames" not in switch:
        return PromptEffect.KEEP
    return PromptEffect.RE_ENCODE if switch["keeps_sink"] else PromptEffect.RE_ENCODE_ALL


def _manifest(folder: Path, config: Mapping[str, Any], rollout: RolloutConfig) -> Manifest:
    """The model as a servable one that stops at latents."""
    checkpoint = config.get("checkpoint") or {"file": "transformer.safetensors", "key": None}
    lora = config.get("lora")
    size_px = (config["width"] * LATENT_STRIDE_PX, config["height"] * LATENT_STRIDE_PX)
    return Manifest(
        name=folder.name,
        transformer=TransformerConfig(**{key: config[key] for key in TRANSFORMER_KEYS}),
        rollout=rollout,
        video=VideoConfig(sizes=(size_px,), fps=16),
        transformer_file=folder / checkpoint["file"],
        transformer_key=checkpoint["key"],
        loras=() if lora is None else (Lora(file=folder / lora["file"], key=lora["key"], alpha=lora["alpha"]),),
    )
