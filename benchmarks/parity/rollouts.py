"""Recorded roll-outs against the oracle, and against the real engine: processes, tickets, pages and hand-over.

Letters: F latent frames, C latent channels, Y and X latent height and width.
"""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.parity.lines import Line, error_of
from benchmarks.parity.recorded import TENSORS_FILE, Recorded, recorded_rollouts
from engine import Engine, EngineConfig, Output, Pace, PromptAt, VideoRequest
from engine.config import Order
from engine.law.schedule import first_latent_frame, frames_before_block, latent_frames_in_block
from engine.model.tensor_bytes import to_bytes
from engine.model.weights import load_transformer
from engine.oracle import Rollout, roll_out
from engine.stage.noise import RecordedNoise

CPU = torch.device("cpu")
MOST = "most"
MAX_VIDEOS = 3
OPENING = "first_block"
"""What is recorded of a first block of other steps lies under this name."""


def compare_rollouts(
    folder: Path, config: dict[str, Any], workers: list[str], only: list[str] | None
) -> Iterator[Line]:
    """Each roll-out through the oracle, then through the engine on so many workers, fused and not, alone and beside
    others. Raises ``ValueError`` for a name in ``only`` that none has.
    """
    tensors = load_file(folder / TENSORS_FILE)
    recorded = {one.name: one for one in recorded_rollouts(folder, config)}
    if unknown := set(only or ()) - recorded.keys():
        raise ValueError(f"{folder} has no roll-out {', '.join(sorted(unknown))}; it has {', '.join(recorded)}")
    for one in recorded.values() if only is None else [recorded[name] for name in only]:
        yield Line(f"{one.name} oracle", oracle_errors(one, folder / TENSORS_FILE, tensors))
        for count in dict.fromkeys(most_workers(one) if word == MOST else int(word) for word in workers):
            errors = engine_errors(one, folder / TENSORS_FILE, tensors, count)
            yield Line(f"{one.name} engine, {count} worker(s)", errors)


def most_workers(one: Recorded) -> int:
    """Of one chain: the stages of a block-first roll-out share pages, so they stay together."""
    return 2 if one.rollout.order == Order.BLOCK_FIRST else one.rollout.num_stages + 1


def oracle_errors(one: Recorded, file: Path, tensors: dict[str, Tensor]) -> dict[str, float]:
    """By what was recorded: latents of the whole video, flow and clean prediction of each step."""
    manifest, rollout = one.manifest, one.rollout
    model = load_transformer(
        manifest.transformer, manifest.transformer_file, CPU, key=manifest.transformer_key, loras=manifest.loras
    )
    noise = RecordedNoise(file, rollout, CPU, one.noise_start)
    size = (manifest.transformer.in_dim, *tensors[f"{one.name}.latents"].shape[2:])
    initial = initial_blocks(one, tensors)
    result = roll_out(
        model,
        rollout,
        lambda b, step: noise(0, b, step, (latent_frames_in_block(rollout, b), *size)),
        tensors[one.contexts[0]],
        one.num_blocks,
        initial=initial,
        prompts={block: tensors[name] for block, name in one.contexts.items() if block > 0},
    )
    ours = torch.cat([result.latents[block] for block in range(one.num_blocks)])
    errors = {"latents": error_of(ours, tensors[f"{one.name}.latents"])}
    return errors | _step_errors(one, result, tensors, opening_block=len(initial))


def _step_errors(one: Recorded, result: Rollout, tensors: dict[str, Tensor], opening_block: int) -> dict[str, float]:
    has_others = one.rollout.first_block_steps is not None
    errors = {}
    for quantity, parts in (("flow", result.flow), ("x0", result.x0)):
        for step in range(one.rollout.num_stages):
            blocks = [
                block for at, block in sorted(parts) if at == step and not (has_others and block == opening_block)
            ]
            for name, chosen in ((quantity, blocks), (f"{OPENING}.{quantity}", [opening_block])):
                expected = tensors.get(f"{one.name}.{name}.{step}")
                if expected is not None:
                    ours = torch.cat([parts[step, block] for block in chosen])
                    errors[f"{name}.{step}"] = error_of(ours, expected[-len(ours) :])
    return errors


def initial_blocks(one: Recorded, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Latents of the blocks that are given, each [F, C, Y, X]."""
    count = one.blocks_before(one.initial_frames)
    starts = [first_latent_frame(one.rollout, block) for block in range(count + 1)]
    return [tensors["initial_latent"][a:b] for a, b in pairwise(starts)]


def engine_errors(one: Recorded, file: Path, tensors: dict[str, Tensor], num_workers: int) -> dict[str, float]:
    """Of the latents, by how they were made. Workers beyond what a chain can use become further chains."""
    expected, errors = tensors[f"{one.name}.latents"], {}
    num_stages = one.rollout.num_stages
    for max_segments, fusion in ((1, "separate"), (2, "fused"), (2 * num_stages, "diagonal")):
        config = EngineConfig(
            manifest=one.manifest,
            devices=("cpu",) * num_workers,
            max_videos=MAX_VIDEOS,
            max_segments=max_segments,
            max_inflight_blocks=num_stages + 2,
            poison_pages=True,
            recording_file=file,
            recording_first_frame=one.noise_start,
        )
        alone, together = asyncio.run(generate(config, request_of(one, tensors), expected.shape))
        errors[f"{fusion} alone"] = error_of(alone, expected)
        errors[f"{fusion}, {MAX_VIDEOS} videos"] = max(error_of(latents, expected) for latents in together)
    return errors


def request_of(one: Recorded, tensors: dict[str, Tensor]) -> VideoRequest:
    """The recorded video, as a caller would ask for it."""
    width_px, height_px = one.manifest.video.sizes[0]
    fps = one.manifest.video.fps
    starts_s = {block: frames_before_block(one.rollout, block) / fps for block in one.contexts}
    return VideoRequest(
        prompts=tuple(PromptAt(at_s=starts_s[block], text=name) for block, name in one.contexts.items()),
        width_px=width_px,
        height_px=height_px,
        fps=fps,
        seconds=frames_before_block(one.rollout, one.num_blocks) / fps,
        pace=Pace.FAST,
        output=Output.LATENTS,
        initial=tuple(map(to_bytes, initial_blocks(one, tensors))),
    )


async def generate(config: EngineConfig, request: VideoRequest, shape: torch.Size) -> tuple[Tensor, list[Tensor]]:
    """The latents of a video alone, then of several at once, each of ``shape``, from a real engine."""
    engine = Engine(config)

    async def one_video() -> Tensor:
        video = await engine.open(request)
        data = b"".join([fragment.data async for fragment in video.read()])
        return torch.frombuffer(bytearray(data), dtype=torch.float32).view(shape)

    await engine.start()
    try:
        await engine.wait_ready()
        alone = await one_video()
        return alone, list(await asyncio.gather(*(one_video() for _ in range(MAX_VIDEOS))))
    finally:
        await engine.stop()
