"""The engine's latents against the oracle's, block by block, with the same noise and in the same type.

In bfloat16 the two round at other places: the oracle keeps latents in float32, attends by torch and fuses nothing.
What rounding alone amounts to depends on the weights, so it is measured: as the distance of the oracle from itself in
float32, over the first blocks. A few times that is allowed; a wrong page, a missed block or another noise is beyond.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.gpu.record import Table
from benchmarks.gpu.smoke.check import Check
from benchmarks.gpu.smoke.model import COMPARED_BLOCKS, PROMPT, SEED, latent_shape
from benchmarks.precision.operations import relative_error
from engine import EngineConfig, Manifest
from engine.model.dit import CausalWan
from engine.model.weights import load_transformer
from engine.oracle import roll_out
from engine.stage.build import RecordedPrompt
from engine.stage.noise import KeyedNoise

NUM_BLIND_BLOCKS = 3
"""Blocks of the roll-out that shows what a missing context would amount to."""
NUM_ROUNDED_BLOCKS = 2
"""Blocks of the roll-out in float32, which is slow on a GPU. Later blocks round as the second does (measured on a CPU,
at true widths and 64x64)."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2}
"""By type: what is allowed at least, as the norm of a difference over the norm of what is expected, in any block."""
ROUNDINGS = 3.0
"""How often what rounding amounts to is allowed: 1.4 times are expected of two that round independently; on a CPU, at
true widths and 64x64, rounding was 3.4e-2 and the engine differed by 3.8e-2."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the engine was asked, and what it gave."""

    config: EngineConfig
    dtype_name: str
    text_device: str
    blocks: tuple[bytes, ...]
    """Latents of the first blocks."""
    seed: int = SEED


def against_oracle(question: Question) -> Check:
    """Roll out the same blocks on the engine's first device. Raises ``WeightsError``."""
    device, dtype = torch.device(question.config.devices[0]), getattr(torch, question.dtype_name)
    manifest = question.config.manifest
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with torch.inference_mode():
        embedding_TX = _embed(question, dtype).to(device)
        model = _load(manifest, device, dtype)
        expected = _roll_out(model, manifest, embedding_TX, question.seed, len(question.blocks))
        blind = _roll_out(model, _without_context(manifest), embedding_TX, question.seed, NUM_BLIND_BLOCKS)
        exact = expected
        if dtype != torch.float32:
            model = _load(manifest, device, torch.float32)
            exact = _roll_out(model, manifest, embedding_TX.float(), question.seed, NUM_ROUNDED_BLOCKS)
    shape = latent_shape(manifest)
    found = [tensor_of(data, question.dtype_name, shape) for data in question.blocks]
    rounding, without_context = max(_errors(expected, exact)), max(_errors(blind, expected))
    tolerance = max(TOLERANCES[question.dtype_name], ROUNDINGS * rounding)
    return _judged(_errors(found, expected), rounding, without_context, tolerance, question.dtype_name)


def _judged(errors: list[float], rounding: float, without_context: float, tolerance: float, dtype_name: str) -> Check:
    """Passed or failed; neither where even a missing context would be within what is allowed."""
    result = (
        f"blocks 0 to {len(errors) - 1} differ by at most {max(errors):.1e}, {tolerance:.2g} is allowed in "
        f"{dtype_name}; attending to no earlier block would make {without_context:.1e}"
    )
    is_near, is_telling = all(error <= tolerance for error in errors), without_context > tolerance
    return Check(
        name="oracle",
        result=result + ("" if is_telling else ", so this says nothing about the context"),
        passed=None if is_near and not is_telling else is_near,
        numbers={
            "worst_error": max(errors),
            "tolerance": tolerance,
            "rounding_error": rounding,
            "without_context_error": without_context,
            "blocks": len(errors),
        },
        tables=(
            Table(
                "Norm of the difference over the norm of the oracle's latents",
                ("block", "error"),
                tuple(enumerate(errors)),
            ),
        ),
    )


def _errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Of the first blocks, as many as there are of both."""
    return [relative_error(block, wanted) for block, wanted in zip(found, expected, strict=False)]


def tensor_of(data: bytes, dtype_name: str, shape: tuple[int, ...]) -> Tensor:
    """Latents of a block, as the engine gives them. Raises ``RuntimeError`` for another number of bytes."""
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype_name)).view(shape)


def compared(blocks: list[bytes]) -> tuple[bytes, ...]:
    """The blocks that are compared."""
    return tuple(blocks[:COMPARED_BLOCKS])


def _load(manifest: Manifest, device: torch.device, dtype: torch.dtype) -> CausalWan:
    key, loras = manifest.transformer_key, manifest.loras
    return load_transformer(manifest.transformer, manifest.transformer_file, device, dtype, key=key, loras=loras)


def _embed(question: Question, dtype: torch.dtype) -> Tensor:
    """The padded prompt embedding [text_len, text_dim]."""
    manifest, recording = question.config.manifest, question.config.recording_file
    if recording is not None:
        rows_TX = RecordedPrompt(recording).embed(PROMPT)
    else:
        from engine.model.text import load_text_encoder  # noqa: PLC0415 - its packages may be absent

        assert manifest.text is not None and manifest.text_file is not None and manifest.tokenizer_file is not None
        device = torch.device(question.text_device)
        text = load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, device, dtype)
        rows_TX = text.embed(PROMPT)
    return pad(rows_TX, (0, 0, 0, manifest.transformer.text_len - len(rows_TX)))


def _roll_out(model: CausalWan, manifest: Manifest, embedding_TX: Tensor, seed: int, num_blocks: int) -> list[Tensor]:
    """The oracle's latents of each block, on the host."""
    noise, shape = KeyedNoise(model.device), latent_shape(manifest)
    result = roll_out(
        model, manifest.rollout, lambda block, stage: noise(seed, block, stage, shape), embedding_TX, num_blocks
    )
    return [result.latents[block].cpu() for block in range(num_blocks)]


def _without_context(manifest: Manifest) -> Manifest:
    """The model with a window of its own block alone."""
    rollout = manifest.rollout
    alone = replace(rollout, window_latent_frames=rollout.latent_frames_per_block, sink_latent_frames=0)
    return replace(manifest, rollout=alone)
