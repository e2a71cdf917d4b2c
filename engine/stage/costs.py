"""Measures what one block costs on a device, for the planner: real passes over a full window, at the default size.

Forwards run without graphs, over pages of their own that are gone afterwards; kernels are compiled on the way. Knows no
ticket.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, Order
from engine.engine_config import EngineConfig
from engine.law.placement import PassCosts
from engine.law.schedule import noise_levels, passes_of_block
from engine.messages import StartPhase
from engine.model.decoder import Decoder
from engine.model.segments import SegmentBatch
from engine.model.vae import WanVae
from engine.stage import build
from engine.stage.network import Network
from engine.stage.progress import Progress
from kernels.yuv.formula import rgb_to_yuv420p

NUM_RUNS = 3
LONG_RUN_S = 1.0
"""On a CPU a first run this long is the measurement: what comes first only once is small beside it, and its caller
waits. A GPU's first run compiles kernels, which may take far longer than the work."""


def measure(
    config: EngineConfig, device: torch.device, model: Network, decoder: Decoder | None, progress: Progress
) -> PassCosts:
    """Time the passes of one block through 1 .. S stages, and its decoding."""
    denoise_s = _denoise_costs(config, device, model, progress)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # its pages would be missing where the decoder takes its room
    decode_s = _decode_cost(config, device, decoder)
    return PassCosts(denoise_s=denoise_s, decode_s=decode_s, units_s=_unit_costs(config, device, decoder))


def _denoise_costs(config: EngineConfig, device: torch.device, model: Network, progress: Progress) -> tuple[float, ...]:
    """At index k - 1 the seconds of one block through k stages, in forwards as large as the runner makes them."""
    rollout, limit = config.manifest.rollout, config.segments_limit
    pool = build.allocate_pages(config, device, rollout.window_blocks - 1 + rollout.num_stages)
    most = min(rollout.num_stages, limit // 2) if limit > 1 and rollout.order == Order.STEP_FIRST else 2
    if config.poison_pages:
        for pages in pool.cache.tensors:
            pages.zero_()
    known: dict[tuple[int, int], float] = {}

    def forward_s(num_cache: int, num_denoise: int) -> float:
        if (num_cache, num_denoise) not in known:
            size_px = config.manifest.video.sizes[0]
            batch = _steady_batch(config, device, model, num_cache, num_denoise, size_px)
            progress.step(StartPhase.MEASURING, len(known), most)
            known[num_cache, num_denoise] = _seconds(device, lambda: model(batch, pool.cache))
        return known[num_cache, num_denoise]

    fused = limit > 1
    if rollout.order == Order.BLOCK_FIRST:
        first_s = forward_s(1, 1) if fused else forward_s(1, 0) + forward_s(0, 1)
        passes = [passes_of_block(rollout, k) for k in range(1, rollout.num_stages + 1)]
        return tuple(first_s + (count - 2) * forward_s(0, 1) for count in passes)
    costs = []
    for k in range(1, rollout.num_stages + 1):
        if not fused:
            costs.append(k * (forward_s(1, 0) + forward_s(0, 1)))
            continue
        at_once = min(k, limit // 2)
        rest = k % at_once
        costs.append(k // at_once * forward_s(at_once, at_once) + (forward_s(rest, rest) if rest else 0.0))
    return tuple(costs)


def _steady_batch(
    config: EngineConfig,
    device: torch.device,
    model: Network,
    num_cache: int,
    num_denoise: int,
    size_px: tuple[int, int],
) -> SegmentBatch:
    """Passes of a video whose window is full; all read the same pages, which costs what reading others would."""
    rollout, count = config.manifest.rollout, num_cache + num_denoise
    width_px, height_px = size_px
    shape = (
        rollout.latent_frames_per_block,
        config.manifest.transformer.in_dim,
        height_px // LATENT_STRIDE_PX,
        width_px // LATENT_STRIDE_PX,
    )
    dtype = build.dtype_on(config, device)
    context = model.encode_context(torch.zeros(1, config.manifest.transformer.text_dim))
    window = tuple(range(rollout.window_blocks - 1))
    return SegmentBatch(
        latents_GFCYX=torch.zeros(count, *shape, dtype=dtype, device=device),
        timesteps_G=torch.full((count,), noise_levels(rollout)[0].timestep, device=device),
        starts_G=torch.full((count,), rollout.window_latent_frames, dtype=torch.int64, device=device),
        contexts=(context,) * count,
        page_lists=(window,) * count,
        write_pages=tuple(len(window) + index for index in range(num_cache)),
    )


def _decode_cost(config: EngineConfig, device: torch.device, decoder: Decoder | None) -> float:
    """Seconds from latents to planes on the host; the encoder has a thread of its own beside that."""
    if decoder is None:
        return 0.0
    latents_FCYX = _block(config, device)
    _, state = decoder.decode(latents_FCYX, None)
    return _seconds(device, lambda: rgb_to_yuv420p(decoder.decode(latents_FCYX, state)[0]).cpu())


def _unit_costs(config: EngineConfig, device: torch.device, decoder: Decoder | None) -> tuple[float, ...]:
    """Seconds of each unit of a decoder that could be cut; none where no other device could take a part of it.

    Arithmetic is no measure of them: units of high resolution wait for memory (``vae`` spec section 6).
    """
    if not isinstance(decoder, WanVae) or len(config.devices) == 1:
        return ()
    x_TCYX, costs_s = _block(config, device), []
    for index in range(len(decoder.decoder.units)):
        part = decoder.part(index, index + 1)
        _, state = part.decode(x_TCYX, None)
        costs_s.append(_seconds(device, partial(part.decode, x_TCYX, state)))
        x_TCYX = part.decode(x_TCYX, state)[0]
    return tuple(costs_s)


def _block(config: EngineConfig, device: torch.device) -> Tensor:
    """Latents of a block of the default size, [F, C, Y, X]."""
    width_px, height_px = config.manifest.video.sizes[0]
    shape = (
        config.manifest.rollout.latent_frames_per_block,
        config.manifest.transformer.in_dim,
        height_px // LATENT_STRIDE_PX,
        width_px // LATENT_STRIDE_PX,
    )
    return torch.zeros(shape, dtype=build.dtype_on(config, device), device=device)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """The shortest of a few runs after a first one: what it takes when nothing else disturbs."""
    first_s = _timed(device, work)
    if device.type == "cpu" and first_s > LONG_RUN_S:
        return first_s
    return min(_timed(device, work) for _ in range(NUM_RUNS))


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
