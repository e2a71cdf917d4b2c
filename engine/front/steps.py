"""When the denoising steps of a video's blocks ran: kept from the moment a worker tells it until the block is told of.

A plain value of the record. Its size is bounded by the blocks that are made and not told of yet.
"""

from dataclasses import dataclass

STEP_BYTES = 128
"""Of a step in memory."""
MOST_BLOCKS = 64
"""The newest of those that wait to be told of; a store that is slower gets no steps of the others."""


@dataclass(frozen=True, slots=True)
class Step:
    """A denoise pass of a block."""

    number: int
    """The stage that ran it."""
    rank: int
    """Of the worker."""
    began_s: float
    """Since the video left the queue."""
    took_s: float


class Steps:
    """Of the blocks of one video that are not told of."""

    def __init__(self) -> None:
        self._of: dict[int, dict[int, Step]] = {}

    def add(self, block: int, step: Step) -> None:
        """A step ran. The first of a block and stage counts: a log that is made again repeats it."""
        self._of.setdefault(block, {}).setdefault(step.number, step)
        if len(self._of) > MOST_BLOCKS:
            del self._of[min(self._of)]

    def take(self, block: int) -> tuple[Step, ...]:
        """What is known of a block, which is told of now, by stage."""
        known = self._of.pop(block, {})
        return tuple(known[number] for number in sorted(known))

    def forget_from(self, block: int) -> None:
        """Blocks from this one on are begun again."""
        self._of = {other: steps for other, steps in self._of.items() if other < block}
