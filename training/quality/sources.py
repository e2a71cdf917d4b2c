"""Where the frames of a video come from: the world itself, the real engine, or a roll-out with another context.

Nothing is encoded: latents become frames by the model's own decoder, in memory. Knows no measure.

Letters: T frames or latent frames, C channels, H and W height and width, Y and X latent height and width.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine import Engine, EngineConfig, Manifest, Output, Pace, PromptAt, VideoRequest, read_manifest
from engine.config import LATENT_STRIDE_PX, Order, require
from engine.law.schedule import blocks_for_frames
from engine.model.decoder import Decoder
from engine.model.segments import stack_text
from engine.model.text import load_text_encoder
from engine.model.weights import load_decoder, load_transformer
from engine.stage.noise import KeyedNoise
from training.quality.backdrop import Pixels
from training.quality.films import Film
from training.render import render
from training.rollout import Context, Plan, roll_out, sample_noise

Source = Callable[[Film, int], Awaitable[Pixels]]
"""``source(film, num_frames)``: the video, uint8 RGB [T, H, W, 3]."""

WORLD_FRAMES_APART = 4001
"""Repeats of the world's own video begin so many frames apart."""


class Way(StrEnum):
    """How a video is made."""

    WORLD = "world"
    """Rendered from the scene: what a perfect model would make."""
    STEP_FIRST = "step_first"
    """HiAR, by the engine."""
    BLOCK_FIRST = "block_first"
    """Self-Forcing's order, by the engine."""
    CONTEXT_CURRENT = "context_current"
    """Step-first with context at each stage's input level t_s, by a roll-out (spec section 7.4)."""
    CONTEXT_CLEAN = "context_clean"
    """Step-first with clean context, by a roll-out."""


CONTEXTS = {Way.CONTEXT_CURRENT: Context.CURRENT, Way.CONTEXT_CLEAN: Context.CLEAN}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the comparison. Raises ``ValueError`` on a model that has no prompt or no pixels."""

    name: str
    way: Way
    manifest: Manifest
    folder: Path

    def __post_init__(self) -> None:
        """Check that the model is whole."""
        whole = self.manifest.text is not None and self.manifest.decoder is not None
        require(whole, f"{self.folder} has no text encoder or no decoder")


def read_entry(name: str, way: Way, folder: Path) -> Entry:
    """A model of a folder. Raises ``StartError`` where there is none."""
    return Entry(name=name, way=way, manifest=read_manifest(folder), folder=folder)


@asynccontextmanager
async def open_source(entry: Entry, device: str, num_threads: int | None) -> AsyncIterator[Source]:
    """Something that makes an entry's videos. Raises ``HiarError`` for what the engine refuses."""
    if entry.way is Way.WORLD:
        yield _film_the_world(entry.manifest)
    elif entry.way in CONTEXTS:
        yield await asyncio.to_thread(_with_context, entry.manifest, CONTEXTS[entry.way], torch.device(device))
    else:
        order = Order(entry.way.value)
        manifest = replace(entry.manifest, rollout=replace(entry.manifest.rollout, order=order))
        engine = Engine(EngineConfig(manifest=manifest, devices=(device,), num_threads=num_threads))
        await engine.start()
        try:
            await engine.wait_ready()
            yield _by_engine(engine, torch.device(device))
        finally:
            await engine.stop()


def _film_the_world(manifest: Manifest) -> Source:
    size_px, fps = manifest.video.sizes[0][0], manifest.video.fps

    async def source(film: Film, num_frames: int) -> Pixels:
        first = WORLD_FRAMES_APART * film.repeat
        return await asyncio.to_thread(render, film.scene, first, num_frames, size_px, fps)

    return source


def _by_engine(engine: Engine, device: torch.device) -> Source:
    manifest = engine.manifest
    width_px, height_px = manifest.video.sizes[0]
    decoder = _decoder(manifest, device)
    shape = (-1, *_latent_shape(manifest))

    async def source(film: Film, num_frames: int) -> Pixels:
        request = VideoRequest(
            prompts=(PromptAt(at_s=0, text=film.prompt),),
            width_px=width_px,
            height_px=height_px,
            fps=manifest.video.fps,
            seconds=num_frames / manifest.video.fps,
            seed=film.seed,
            pace=Pace.FAST,
            output=Output.LATENTS,
        )
        video = await engine.open(request)
        data = [fragment.data async for fragment in video.read()]
        latents = torch.frombuffer(bytearray(b"".join(data)), dtype=torch.float32).view(shape)
        return await asyncio.to_thread(_decode, decoder, manifest, latents.to(device), num_frames)

    return source


def _with_context(manifest: Manifest, context: Context, device: torch.device) -> Source:
    """Roll-outs of this process, because the engine runs the model's own context only."""
    assert manifest.text is not None and manifest.text_file is not None and manifest.tokenizer_file is not None
    key, loras = manifest.transformer_key, manifest.loras
    transformer = load_transformer(manifest.transformer, manifest.transformer_file, device, key=key, loras=loras)
    encoder = load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, device)
    decoder = _decoder(manifest, device)
    noise, shape = KeyedNoise(device), (manifest.rollout.latent_frames_per_block, *_latent_shape(manifest))
    rollout = replace(manifest.rollout, order=Order.STEP_FIRST)

    def make(film: Film, num_frames: int) -> Pixels:
        num_blocks = blocks_for_frames(rollout, num_frames)
        plan = Plan(rollout=rollout, num_blocks=num_blocks, exit_stage=rollout.num_stages - 1, context=context)
        text = stack_text([transformer.encode_context(encoder.embed(film.prompt))])
        run = roll_out(transformer, plan, sample_noise(noise, [film.seed], shape), text, keeps_pages=False)
        return _decode(decoder, manifest, run.x0_BNFCYX[0].flatten(0, 1), num_frames)

    async def source(film: Film, num_frames: int) -> Pixels:
        return await asyncio.to_thread(make, film, num_frames)

    return source


def _latent_shape(manifest: Manifest) -> tuple[int, int, int]:
    """Of one latent frame [C, Y, X]."""
    width_px, height_px = manifest.video.sizes[0]
    return manifest.transformer.in_dim, height_px // LATENT_STRIDE_PX, width_px // LATENT_STRIDE_PX


def _decoder(manifest: Manifest, device: torch.device) -> Decoder:
    assert manifest.decoder is not None and manifest.decoder_file is not None
    return load_decoder(manifest.decoder, manifest.decoder_file, device)


def _decode(decoder: Decoder, manifest: Manifest, latents_TCYX: Tensor, num_frames: int) -> Pixels:
    """Block by block, as the engine's decode stage does."""
    state, parts = None, []
    with torch.inference_mode():
        for block in latents_TCYX.split(manifest.rollout.latent_frames_per_block):
            pixels_T3HW, state = decoder.decode(block, state)
            parts.append((pixels_T3HW * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)[:num_frames]
