"""Which device runs which stages: arithmetic on measured costs (design, law 8). Pure; knows no process.

*Theory of operation.* A chain makes one block per ``block_s``, the load of its slowest worker, so the planner cuts the
line ``denoise[0] .. denoise[S-1], decode`` into as many contiguous pieces as the chain has devices, with the smallest
possible slowest piece. More than S + 1 devices cannot shorten a chain; they become further chains that share the
videos. In block-first order every stage reads the last stage's pages, so all denoise stages stay together and a
chain has at most two pieces.

A piece that does not fit in its device's memory is none: among cuts that fit everywhere the fastest is taken, and if
there is none, the fastest of all, which is then refused by ``engine.law.fitting``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import inf

from engine.config import Order, RolloutConfig, require


@dataclass(frozen=True, kw_only=True)
class PassCosts:
    """Seconds of work for one block at the model's default size, measured at warm-up."""

    denoise_s: tuple[float, ...]
    """At index k - 1: k stages on one device, their denoise and cache passes, batched as that device batches."""
    decode_s: float
    """Decoding and encoding; 0 for a model that stops at latents."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one worker runs."""

    rank: int
    """Of the worker in its group, 0 first."""
    device: str
    chain: int
    stages: tuple[int, ...]
    """Denoise stages, ascending and adjacent; empty for a worker that only decodes."""
    decodes: bool
    embeds_text: bool
    """Runs the text encoder, for all chains."""
    text_on_host: bool = False
    """The text encoder is in the host's memory and runs on its CPU."""
    previous: int | None
    """Rank that hands latents to this one; None at the head of a chain."""
    next: int | None
    """Rank that latents are handed to; None at the end of a chain."""
    load_s: float
    """Predicted seconds of work a block."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its stages, for people."""
        text = (("text (on the host)" if self.text_on_host else "text"),) if self.embeds_text else ()
        decode = ("decode",) if self.decodes else ()
        return (*text, *(f"denoise[{stage}]" for stage in self.stages), *decode)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All placements, by rank."""

    placements: tuple[Placement, ...]

    @property
    def chains(self) -> tuple[tuple[Placement, ...], ...]:
        """The placements of each chain, in the order in which a block passes them."""
        count = 1 + max(placement.chain for placement in self.placements)
        return tuple(
            tuple(placement for placement in self.placements if placement.chain == chain) for chain in range(count)
        )

    @property
    def text_rank(self) -> int:
        """The worker that embeds prompts."""
        return next(placement.rank for placement in self.placements if placement.embeds_text)

    def block_s(self, chain: int) -> float:
        """Predicted seconds between two blocks of a busy chain."""
        return max(placement.load_s for placement in self.chains[chain])

    def describe(self, frames_per_block: int) -> str:
        """The plan and its predicted rate in one line."""
        workers = "; ".join(
            f"{placement.device}: {' '.join(placement.names)} ({placement.load_s:.3f} s)"
            for placement in self.placements
        )
        rate = sum(frames_per_block / self.block_s(chain) for chain in range(len(self.chains)))
        return f"{len(self.chains)} chain(s), {rate:.1f} frames/s predicted; {workers}"


Fits = Callable[[int, tuple[int, ...], bool], bool]
"""Whether a device, by its index, has room for denoise stages and perhaps decoding."""


def place(rollout: RolloutConfig, devices: tuple[str, ...], costs: PassCosts, fits: Fits | None = None) -> Plan:
    """Assign every stage to a device. Devices are taken in the order given; neighbours in it are neighbours in a chain.

    Raises:
        ValueError: there is no device.
    """
    require(len(devices) >= 1, "there is no device to place stages on")
    longest = 2 if rollout.order == Order.BLOCK_FIRST else rollout.num_stages + 1
    num_chains = -(-len(devices) // longest)
    placements: list[Placement] = []
    for chain in range(num_chains):
        length = (len(devices) - len(placements)) // (num_chains - chain)
        placements += _chain(
            rollout, devices[len(placements) : len(placements) + length], costs, chain, len(placements), fits
        )
    quietest = min(placements, key=lambda placement: placement.load_s).rank
    return Plan(
        placements=tuple(replace(placement, embeds_text=placement.rank == quietest) for placement in placements)
    )


def _chain(
    rollout: RolloutConfig,
    devices: tuple[str, ...],
    costs: PassCosts,
    chain: int,
    first_rank: int,
    fits: Fits | None,
) -> list[Placement]:
    cuts = _cut(rollout, costs, len(devices), first_rank, fits)
    if cuts is None:
        cuts = _cut(rollout, costs, len(devices), first_rank, None)
    assert cuts is not None, "without a bound there is always a cut"
    last_rank = first_rank + len(devices) - 1
    placements = []
    for index, (device, (begin, end)) in enumerate(zip(devices, cuts, strict=True)):
        rank = first_rank + index
        placements.append(
            Placement(
                rank=rank,
                device=device,
                chain=chain,
                stages=tuple(range(begin, min(end, rollout.num_stages))),
                decodes=end > rollout.num_stages,
                embeds_text=False,
                previous=rank - 1 if rank > first_rank else None,
                next=rank + 1 if rank < last_rank else None,
                load_s=_load_s(rollout, costs, begin, end),
            )
        )
    return placements


def _cut(
    rollout: RolloutConfig, costs: PassCosts, num_pieces: int, first_rank: int, fits: Fits | None
) -> list[tuple[int, int]] | None:
    """Half-open ranges over the S denoise stages and decode (index S), whose largest load is smallest.

    None if no cut fits. Of equal cuts the one with the earlier pieces shorter wins: a block leaves them sooner.
    """
    num_links = rollout.num_stages + 1

    def load_s(begin: int, end: int, pieces: int) -> float:
        """Of a piece that ``pieces - 1`` others follow; infinite where it does not fit."""
        stages = tuple(range(begin, min(end, rollout.num_stages)))
        rank = first_rank + num_pieces - pieces
        has_room = fits is None or fits(rank, stages, end > rollout.num_stages)
        return _load_s(rollout, costs, begin, end) if has_room else inf

    @cache
    def best(begin: int, pieces: int) -> tuple[float, tuple[int, ...]]:
        if pieces == 1:
            return load_s(begin, num_links, pieces), (num_links,)
        options = []
        for end in _ends(rollout, begin, num_links - pieces + 1):
            rest_s, ends = best(end, pieces - 1)
            options.append((max(load_s(begin, end, pieces), rest_s), (end, *ends)))
        return min(options)

    slowest_s, ends = best(0, num_pieces)
    if slowest_s == inf:
        return None
    return list(zip((0, *ends[:-1]), ends, strict=True))


def _ends(rollout: RolloutConfig, begin: int, last: int) -> range:
    """Where a piece that begins at ``begin`` may end: in block-first order only behind the last denoise stage."""
    if rollout.order == Order.BLOCK_FIRST:
        return range(rollout.num_stages, rollout.num_stages + 1)
    return range(begin + 1, last + 1)


def _load_s(rollout: RolloutConfig, costs: PassCosts, begin: int, end: int) -> float:
    num_denoise = min(end, rollout.num_stages) - begin
    decode_s = costs.decode_s if end > rollout.num_stages else 0.0
    return (costs.denoise_s[num_denoise - 1] if num_denoise else 0.0) + decode_s
