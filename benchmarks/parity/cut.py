"""A decoder cut over worker processes against recorded pictures: the hand-over and the decode stages of the engine.

Letters: F latent frames, T frames, C channels, Y and X height and width.
"""

import multiprocessing
import queue
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor

from engine.config import DecoderConfig, RolloutConfig
from engine.law.placement import PassCosts, place
from engine.law.sizes import decoder_units
from engine.media.part import PartStage
from engine.messages import BlockTicket, OpenTicket, Rendezvous
from engine.model.tensor_bytes import to_bytes
from engine.model.vae import WanVae
from engine.model.weights import load_decoder
from engine.request import Output, Quality
from engine.stage.ends import End
from engine.stage.handover import Inlet, Outlet, join
from engine.trace import Timer

CPU = torch.device("cpu")
VIDEO = "v"
WAIT_S = 120.0


@dataclass(frozen=True)
class Cut:
    """What every process is told."""

    config: DecoderConfig
    file: Path
    bounds: tuple[int, ...]
    """Where parts begin, and the end of the last one."""
    rendezvous: Rendezvous
    rollout: RolloutConfig
    size: tuple[int, int]
    """Latent height and width."""
    num_blocks: int


def bounds_of(config: DecoderConfig, num_parts: int, size_px: tuple[int, int]) -> tuple[int, ...]:
    """Cuts that the planner makes of the arithmetic of each unit."""
    works = tuple(float(unit.num_products(size_px) * unit.out_frames) for unit in decoder_units(config))
    costs = PassCosts(denoise_s=(0.0,), decode_s=sum(works), units_s=works)
    one_stage = RolloutConfig(denoising_steps=(1000,))
    placements = place(one_stage, ("cpu",) * num_parts, costs).placements
    return (0, *(len(works) if placement.part is None else placement.part.end for placement in placements))


def decoded_by(num_parts: int, config: DecoderConfig, file: Path, latents_FCYX: Tensor) -> Tensor:
    """All pictures of a stream, [T, 3, Y, X] in [0, 1], from ``num_parts`` processes that each hold a part."""
    num_frames, _, height, width = latents_FCYX.shape
    block_frames = next(count for count in (3, 2, 1) if num_frames % count == 0)
    with tempfile.TemporaryDirectory() as folder:
        cut = Cut(
            config=config,
            file=file,
            bounds=bounds_of(config, num_parts, (8 * width, 8 * height)),
            rendezvous=Rendezvous(store=f"file:{folder}/store", generation=0),
            rollout=RolloutConfig(latent_frames_per_block=block_frames),
            size=(height, width),
            num_blocks=num_frames // block_frames,
        )
        return torch.cat(list(_run(cut, latents_FCYX)))


def _run(cut: Cut, latents_FCYX: Tensor) -> Iterator[Tensor]:
    context = multiprocessing.get_context("spawn")
    num_parts = len(cut.bounds) - 1
    mine, theirs = context.Pipe()
    workers = [
        context.Process(
            target=_worker, args=(cut, rank, latents_FCYX.numpy() if rank == 0 else None, theirs), daemon=True
        )
        for rank in range(num_parts)
    ]
    try:
        for worker in workers:
            worker.start()
        for block in range(cut.num_blocks):
            if not mine.poll(WAIT_S):
                raise TimeoutError(f"block {block} did not come out of {num_parts} decode workers in {WAIT_S:g} s")
            yield torch.from_numpy(mine.recv())
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _worker(cut: Cut, rank: int, latents: object, front: Connection) -> None:
    torch.set_num_threads(1)
    vae = load_decoder(cut.config, cut.file, CPU)
    assert isinstance(vae, WanVae)
    units, num_parts, timer = decoder_units(cut.config), len(cut.bounds) - 1, Timer(rank)
    begin, end = list(pairwise(cut.bounds))[rank]
    with torch.inference_mode():
        if num_parts > 1:
            join(cut.rendezvous, rank, num_parts, CPU)
        arrived: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        inlet = Inlet(rank - 1, CPU, torch.float32, arrived.put, timer) if rank > 0 else None
        outlet = Outlet(rank + 1, CPU, timer) if rank < num_parts - 1 else None
        for way in (inlet, outlet):
            if way is not None:
                way.await_neighbour()
        stage = PartStage(vae.part(begin, end), print, timer)
        come = End(cut.rollout, cut.config.latent_channels, units[begin - 1] if rank > 0 else None)
        stage.open(_open_ticket(cut))
        come.open(_open_ticket(cut))
        for block in range(cut.num_blocks):
            ticket = BlockTicket(video=VIDEO, block=block, num_frames=0, last=False)
            if inlet is None:
                x_TCYX = torch.as_tensor(latents).split(cut.rollout.latent_frames_per_block)[block]
            else:
                shape = come.shape_of(ticket)
                assert shape is not None, "a block comes with a tensor"
                inlet.expect(ticket, shape)
                x_TCYX = arrived.get()
            out_TCYX = stage.push(VIDEO, block, x_TCYX)
            assert out_TCYX is not None, "the video broke"
            if outlet is None:
                front.send(out_TCYX.numpy())
            else:
                outlet.send(ticket, out_TCYX)
        front.poll(None)  # the latents of a worker that leaves would be lost


def _open_ticket(cut: Cut) -> OpenTicket:
    return OpenTicket(
        video=VIDEO,
        seed=0,
        latent_height=cut.size[0],
        latent_width=cut.size[1],
        fps=16,
        quality=Quality.STANDARD,
        output=Output.FRAGMENTS,
        embedding=to_bytes(torch.zeros(1)),
    )
