"""What a worker does once before it serves on a GPU: captures, kernels and memory for all that may come.

Captures the steady forwards of the default size. All other forwards run without a graph; the largest of each size runs
here once, so that its kernels are compiled and its memory is taken before anyone waits. Windows are empty, since which
pages are read is data and reading none is quickest; full ones run where another attention takes them. Knows no ticket.
"""

from dataclasses import replace

import torch

from engine.config import LATENT_STRIDE_PX
from engine.engine_config import EngineConfig
from engine.law.forwards import Mix, steady_mixes
from engine.law.schedule import noise_levels
from engine.messages import StartPhase
from engine.model.graphs import GraphedWan
from engine.model.segments import SegmentBatch, TextContext
from engine.stage import build
from engine.stage.pages import PagePool
from engine.stage.progress import Progress
from kernels.yuv.formula import rgb_to_yuv420p


def warm_forwards(
    config: EngineConfig, model: GraphedWan, pool: PagePool, stages: tuple[int, ...], progress: Progress
) -> None:
    """Capture what is steady, and run the largest forward of every size. Writes free pages, which hold nothing yet."""
    mixes = steady_mixes(config.manifest.rollout, stages, config.segments_limit)
    sizes_px = config.manifest.video.sizes
    num_steps = len(mixes) + len(sizes_px)
    context = model.encode_context(torch.zeros(1, config.manifest.transformer.text_dim))
    for step, mix in enumerate(mixes):
        progress.step(StartPhase.CAPTURING, step, num_steps)
        model.capture(empty_batch(config, model.device, context, mix, sizes_px[0]), pool.cache)
    for step, size_px in enumerate(sizes_px, start=len(mixes)):
        progress.step(StartPhase.CAPTURING, step, num_steps)
        batch = empty_batch(config, model.device, context, mixes[0], size_px)
        model.run_plainly(batch, pool.cache)
        if model.attention.full is not model.attention.growing:
            model.run_plainly(with_full_windows(config, batch), pool.cache)
    progress.step(StartPhase.CAPTURING, num_steps, num_steps)


def warm_pictures(config: EngineConfig, device: torch.device) -> None:
    """Turn one picture of every size into planes: the kernel that does so is compiled for each width."""
    for width_px, height_px in config.manifest.video.sizes:
        rgb_to_yuv420p(torch.zeros(1, 3, height_px, width_px, device=device))


def empty_batch(
    config: EngineConfig, device: torch.device, context: TextContext, mix: Mix, size_px: tuple[int, int]
) -> SegmentBatch:
    """Passes of videos that have no pages yet; cache passes write the first pages of the pool."""
    rollout, count = config.manifest.rollout, mix.num_segments
    width_px, height_px = size_px
    shape = (
        rollout.latent_frames_per_block,
        config.manifest.transformer.in_dim,
        height_px // LATENT_STRIDE_PX,
        width_px // LATENT_STRIDE_PX,
    )
    return SegmentBatch(
        latents_GFCYX=torch.zeros(count, *shape, dtype=build.dtype_on(config, device), device=device),
        timesteps_G=torch.full((count,), noise_levels(rollout)[0].timestep, device=device),
        starts_G=torch.zeros(count, dtype=torch.int64, device=device),
        contexts=(context,) * count,
        page_lists=((),) * count,
        write_pages=tuple(range(mix.num_cache)),
    )


def with_full_windows(config: EngineConfig, batch: SegmentBatch) -> SegmentBatch:
    """The same passes over as many pages as a segment reads at most: the first of the pool, for each."""
    pages = tuple(range(config.manifest.rollout.window_blocks - 1))
    return replace(batch, page_lists=(pages,) * len(batch.page_lists))
