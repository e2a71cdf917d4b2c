"""Which device runs which stages: arithmetic on measured costs (design, law 8). Pure; knows no process.

*Theory of operation.* A chain makes one block per ``block_s``, the load of its slowest worker, so the planner cuts the
line ``denoise[0] .. denoise[S-1]`` and the units of the decoder behind it into as many contiguous pieces as the chain
has devices, with the smallest possible slowest piece. Where the decoder's units were not measured it is one. In
block-first order every stage reads the last stage's pages, so all denoise stages stay together.

More devices shorten a chain until its longest unit is alone; further ones become chains that share the videos. One
viewer feels only how fast a chain is, so as many chains are made as leave each within ``WORTH`` of the fastest.

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

    units_s: tuple[float, ...] = ()
    """Of ``decode_s`` what each unit of the decoder takes; empty for one that is not cut."""

    @property
    def decode_links_s(self) -> tuple[float, ...]:
        """Seconds of what may be placed apart: decoder units, the last one with what follows it."""
        if not self.units_s:
            return (self.decode_s,)
        behind_s = max(0.0, self.decode_s - sum(self.units_s))
        return (*self.units_s[:-1], self.units_s[-1] + behind_s)


@dataclass(frozen=True, kw_only=True)
class DecoderPart:
    """Units ``begin`` to ``end`` of a decoder of ``num_units`` that is cut: ``decode[index]`` of its chain."""

    index: int
    begin: int
    end: int
    num_units: int

    @property
    def is_first(self) -> bool:
        """Whether it takes latents; others take activations."""
        return self.begin == 0

    @property
    def is_last(self) -> bool:
        """Whether it makes pictures."""
        return self.end == self.num_units


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
    part: DecoderPart | None = None
    """What of a decoder that is cut; None for all of it, and where nothing is decoded."""
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
    def encodes(self) -> bool:
        """Whether it makes fragments: the last worker of a chain."""
        return self.decodes and (self.part is None or self.part.is_last)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its stages, for people."""
        text = (("text (on the host)" if self.text_on_host else "text"),) if self.embeds_text else ()
        index = "" if self.part is None else f"[{self.part.index}]"
        decode = (f"decode{index}",) if self.decodes else ()
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


WORTH = 1.05
"""How much longer than the shortest a chain's block may take where that leaves devices for another chain."""

Fits = Callable[[int, tuple[int, ...], DecoderPart | None, bool], bool]
"""Whether a device, by its index, has room for denoise stages and perhaps decoding, or a part of it."""


def place(rollout: RolloutConfig, devices: tuple[str, ...], costs: PassCosts, fits: Fits | None = None) -> Plan:
    """Assign every stage to a device. Devices are taken in the order given; neighbours in it are neighbours in a chain.

    Raises:
        ValueError: there is no device.
    """
    require(len(devices) >= 1, "there is no device to place stages on")
    line = _Line(rollout, costs)
    fewest = -(-len(devices) // line.most_pieces)
    options = range(fewest, len(devices) + 1) if costs.units_s else [fewest]
    plans = [_chains(line, devices, num_chains, fits) for num_chains in options]
    slowest_s = [max(plan.block_s(chain) for chain in range(len(plan.chains))) for plan in plans]
    chosen = max(index for index, took_s in enumerate(slowest_s) if took_s <= WORTH * min(slowest_s))
    placements = plans[chosen].placements
    quietest = min(placements, key=lambda placement: placement.load_s).rank
    return Plan(
        placements=tuple(replace(placement, embeds_text=placement.rank == quietest) for placement in placements)
    )


class _Line:
    """What a block passes, link by link: denoise stages, then decoder units."""

    def __init__(self, rollout: RolloutConfig, costs: PassCosts) -> None:
        self._costs, self._decode_s = costs, costs.decode_links_s
        self.num_stages = rollout.num_stages
        self.num_links = rollout.num_stages + len(self._decode_s)
        self._is_whole = rollout.order == Order.BLOCK_FIRST
        self.most_pieces = len(self._decode_s) + (1 if self._is_whole else rollout.num_stages)

    def ends(self, begin: int, last: int) -> range:
        """Where a piece that begins at ``begin`` may end: in block-first order not between denoise stages."""
        first = begin + 1
        if self._is_whole:
            first = max(first, self.num_stages)
        return range(first, max(first, last) + 1)

    def stages(self, begin: int, end: int) -> tuple[int, ...]:
        """Denoise stages of a piece."""
        return tuple(range(begin, min(end, self.num_stages)))

    def units(self, begin: int, end: int) -> tuple[int, int]:
        """Decoder units of a piece."""
        return max(0, begin - self.num_stages), max(0, end - self.num_stages)

    def load_s(self, begin: int, end: int) -> float:
        """Of a piece."""
        num_denoise, (first, last) = len(self.stages(begin, end)), self.units(begin, end)
        return (self._costs.denoise_s[num_denoise - 1] if num_denoise else 0.0) + sum(self._decode_s[first:last])

    def part(self, begin: int, end: int, index: int) -> DecoderPart | None:
        """What of the decoder a piece runs, where that is a part of it."""
        first, last = self.units(begin, end)
        if last - first in {0, len(self._decode_s)}:
            return None
        return DecoderPart(index=index, begin=first, end=last, num_units=len(self._decode_s))


def _chains(line: _Line, devices: tuple[str, ...], num_chains: int, fits: Fits | None) -> Plan:
    placements: list[Placement] = []
    for chain in range(num_chains):
        length = (len(devices) - len(placements)) // (num_chains - chain)
        first_rank = len(placements)
        cuts = _cut(line, length, first_rank, fits)
        if cuts is None:
            cuts = _cut(line, length, first_rank, None)
        assert cuts is not None, "without a bound there is always a cut"
        placements += _chain(line, devices[first_rank : first_rank + length], cuts, chain, first_rank)
    return Plan(placements=tuple(placements))


def _chain(
    line: _Line, devices: tuple[str, ...], cuts: list[tuple[int, int]], chain: int, first_rank: int
) -> list[Placement]:
    num_before = sum(end <= line.num_stages for _, end in cuts)
    last_rank = first_rank + len(devices) - 1
    return [
        Placement(
            rank=rank,
            device=device,
            chain=chain,
            stages=line.stages(begin, end),
            decodes=end > line.num_stages,
            part=line.part(begin, end, index - num_before),
            embeds_text=False,
            previous=rank - 1 if rank > first_rank else None,
            next=rank + 1 if rank < last_rank else None,
            load_s=line.load_s(begin, end),
        )
        for index, (rank, device, (begin, end)) in enumerate(
            zip(range(first_rank, last_rank + 1), devices, cuts, strict=True)
        )
    ]


def _cut(line: _Line, num_pieces: int, first_rank: int, fits: Fits | None) -> list[tuple[int, int]] | None:
    """Half-open ranges over the links, whose largest load is smallest.

    None if no cut fits. Of equal cuts the one with the earlier pieces shorter wins: a block leaves them sooner.
    """

    def load_s(begin: int, end: int, pieces: int) -> float:
        """Of a piece that ``pieces - 1`` others follow; infinite where it does not fit."""
        part, rank = line.part(begin, end, 0), first_rank + num_pieces - pieces
        has_room = fits is None or fits(rank, line.stages(begin, end), part, end > line.num_stages)
        return line.load_s(begin, end) if has_room else inf

    @cache
    def best(begin: int, pieces: int) -> tuple[float, tuple[int, ...]]:
        if pieces == 1:
            return load_s(begin, line.num_links, pieces), (line.num_links,)
        options = []
        for end in line.ends(begin, line.num_links - pieces + 1):
            rest_s, ends = best(end, pieces - 1)
            options.append((max(load_s(begin, end, pieces), rest_s), (end, *ends)))
        return min(options)

    slowest_s, ends = best(0, num_pieces)
    if slowest_s == inf:
        return None
    return list(zip((0, *ends[:-1]), ends, strict=True))
