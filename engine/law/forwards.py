"""Which mixes of passes the forwards of a worker have: what is captured before it serves, and how large one can get.

A stage brings one denoise pass at most to a forward, with the cache pass it needs. In the steady state every stage of a
worker has both, or cache passes run alone. While windows grow, videos end or lost ones are restored, other mixes come;
they are rare, and run without a graph.
"""

from typing import NamedTuple

from engine.config import PromptEffect, RolloutConfig
from engine.law.window import writes_pages


class Mix(NamedTuple):
    """Passes of one forward."""

    num_cache: int
    num_denoise: int

    @property
    def num_segments(self) -> int:
        """Passes together."""
        return self.num_cache + self.num_denoise


def steady_mixes(rollout: RolloutConfig, stages: tuple[int, ...], max_segments: int) -> tuple[Mix, ...]:
    """Mixes of a worker with these stages whose videos run undisturbed, the largest first.

    The first one captured takes the memory that the others fit in.
    """
    writers = sum(writes_pages(rollout, stage) for stage in stages)
    mixes = {Mix(count, 0) for count in range(1, writers + 1)}
    for num_denoise in range(1, len(stages) + 1):
        mixes |= {Mix(0, num_denoise), Mix(min(num_denoise, writers), num_denoise)}
    possible = [mix for mix in mixes if mix.num_segments <= max_segments]
    return tuple(sorted(possible, key=lambda mix: (-mix.num_segments, mix)))


def largest_forward(rollout: RolloutConfig, stages: tuple[int, ...], max_segments: int, max_videos: int) -> int:
    """Segments of the largest forward that may ever come; 0 without stages.

    Beside its denoise pass and the cache pass that this needs, each stage may run the cache pass of a video that is
    restored; cache passes alone are those of all videos. A window that is encoded again is one forward, whatever
    ``max_segments`` says.
    """
    writers = sum(writes_pages(rollout, stage) for stage in stages)
    largest = min(max_segments, max(len(stages) + 2 * writers, writers * max_videos))
    again = rollout.window_blocks if writers and rollout.prompt_change != PromptEffect.KEEP else 0
    return max(largest, again)
