"""Errors of whole roll-outs: the engine's pages and network, pass by pass, with an option and without.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width, T prompt rows.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.parity.recorded import recorded_rollouts
from benchmarks.precision.operations import relative_error
from engine.config import LATENT_STRIDE_PX, Manifest
from engine.engine_config import Precision
from engine.law.schedule import Level, noise_levels
from engine.law.step import predict_x0, re_noise
from engine.manifest import read_manifest
from engine.model.dit import CausalWan
from engine.model.segments import SegmentBatch, TextContext
from engine.model.text import load_text_encoder
from engine.model.weights import load_transformer
from engine.stage.build import RecordedPrompt
from engine.stage.noise import KeyedNoise
from engine.stage.pages import PagePool, VideoPages
from kernels.attention.int8 import paged_attention_int8
from kernels.fp8.formula import quantise_rows_reference
from kernels.numbers import FP8

CPU = torch.device("cpu")
SEED = 7
PROMPT = "a red fox runs through fresh snow"
OPTIONS = {
    "fp8 pages": Precision(kv_dtype="fp8"),
    "fp8 linears": Precision(linear_dtype="fp8"),
    "int8 attention": Precision(attention_dtype="int8"),
    "all three": Precision(kv_dtype="fp8", linear_dtype="fp8", attention_dtype="int8"),
}


@dataclass(frozen=True)
class Subject:
    """A model and what it is asked."""

    name: str
    manifest: Manifest
    embedding_TX: Tensor

    def model(self, precision: Precision) -> CausalWan:
        """In float32, with the option."""
        manifest = self.manifest
        key, loras = manifest.transformer_key, manifest.loras
        model = load_transformer(manifest.transformer, manifest.transformer_file, CPU, key=key, loras=loras)
        if precision.fp8_linears:
            model.use_fp8_linears()
        if precision.int8_attention:
            model.attention = paged_attention_int8
        return model

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """F, C, Y, X of a block of the default size."""
        width_px, height_px = self.manifest.video.sizes[0]
        frames, channels = self.manifest.rollout.latent_frames_per_block, self.manifest.transformer.in_dim
        return frames, channels, height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX

    @property
    def num_tokens(self) -> int:
        """Of a block."""
        frames, _, height, width = self.latent_shape
        return frames * height * width // self.manifest.transformer.patch_px**2


def golden(folder: Path) -> Subject:
    """A recorded roll-out's model and prompt."""
    manifest = next(recorded_rollouts(folder, json.loads((folder / "config.json").read_text()))).manifest
    return Subject(folder.name, manifest, RecordedPrompt(folder / "rollout.safetensors").embed(""))


def small_model(folder: Path) -> Subject:
    """A servable model with one of its prompts. Raises ``StartError``."""
    manifest = read_manifest(folder)
    assert manifest.text is not None and manifest.text_file is not None and manifest.tokenizer_file is not None
    text = load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, CPU, torch.float32)
    return Subject(f"models/{folder.name}", manifest, text.embed(PROMPT))


def drifts(subject: Subject, num_blocks: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Of each option the relative error of every finished block; and the rounding error of real keys and values."""
    exact, pool = roll_out(subject, Precision(), num_blocks)
    errors = {}
    for name, precision in OPTIONS.items():
        found, _ = roll_out(subject, precision, num_blocks)
        errors[name] = [relative_error(*pair) for pair in zip(found, exact, strict=True)]
    return errors, rounding_errors(pool)


def roll_out(subject: Subject, precision: Precision, num_blocks: int) -> tuple[list[Tensor], PagePool]:
    """Finished blocks, stage by stage, each stage over its own pages; and the last stage's pool."""
    rollout, sizes = subject.manifest.rollout, subject.manifest.transformer
    model, noise, levels = subject.model(precision), KeyedNoise(CPU), noise_levels(rollout)
    context = model.encode_context(subject.embedding_TX)
    blocks = [noise(SEED, block, 0, subject.latent_shape) for block in range(num_blocks)]
    for stage in range(rollout.num_stages):
        pool = PagePool(
            num_pages=rollout.window_blocks,
            num_layers=sizes.num_layers,
            page_tokens=subject.num_tokens,
            num_heads=sizes.num_heads,
            head_dim=sizes.head_dim,
            dtype=FP8 if precision.fp8_pages else torch.float32,
            device=CPU,
        )
        pages = VideoPages(pool, rollout)
        for block in range(num_blocks):
            seen = tuple(one.page for one in pages.attended(block))
            denoise = _one_pass(blocks[block], levels[stage], block, context, seen)
            x0 = predict_x0(blocks[block], model(denoise, pool.cache)[0], levels[stage])
            if stage + 1 < rollout.num_stages:
                x0 = re_noise(x0, noise(SEED, block, stage + 1, subject.latent_shape), levels[stage + 1])
            blocks[block] = x0
            cache = replace(_one_pass(x0, levels[stage + 1], block, context, seen), write_pages=(pages.claim(block),))
            model(cache, pool.cache)
            pages.evict_after(block)
    return blocks, pool


def rounding_errors(pool: PagePool) -> dict[str, float]:
    """What e4m3 loses of the keys and of the values that a roll-out left in its pages, in the worst layer."""
    errors = {}
    for name, layers in (("keys", pool.cache.keys_NPLHK), ("values", pool.cache.values_NPLHK)):
        rounded = [(layer, *quantise_rows_reference(layer)) for layer in layers]
        errors[name] = max(relative_error(held.float() * scales, layer) for layer, held, scales in rounded)
    return errors


def _one_pass(
    latents_FCYX: Tensor, level: Level, block: int, context: TextContext, pages: tuple[int, ...]
) -> SegmentBatch:
    return SegmentBatch(
        latents_GFCYX=latents_FCYX[None],
        timesteps_G=torch.tensor([level.timestep]),
        starts_G=torch.tensor([block * len(latents_FCYX)]),
        contexts=(context,),
        page_lists=(pages,),
        write_pages=(),
    )
