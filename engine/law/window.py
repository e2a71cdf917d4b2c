"""The law of context: which blocks a pass attends to, where they stand in time, and what a new prompt does to them.

Pure functions of the roll-out and of block numbers, as ``engine.law.schedule``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.config import Order, PromptEffect, RolloutConfig, SinkPositions


def context_stage(rollout: RolloutConfig, stage: int) -> int:
    """The stage whose pages ``stage`` attends to."""
    return stage if rollout.order == Order.STEP_FIRST else rollout.num_stages - 1


def writes_pages(rollout: RolloutConfig, stage: int) -> bool:
    """Whether ``stage`` runs cache passes."""
    return context_stage(rollout, stage) == stage


def attended_blocks(rollout: RolloutConfig, block: int, first_sink: int = 0) -> tuple[int, ...]:
    """Earlier blocks that both passes of ``block`` attend to, ascending; the own block comes on top of them.

    Sinks count in the window: with k sink blocks only the last ``window - k`` others stay (spec section 4.1). Sinks are
    the blocks from ``first_sink`` on: 0, until a prompt change makes others the sinks.
    """
    sinks = range(first_sink, min(first_sink + rollout.sink_blocks, block))
    first_recent = max(sinks.stop, block - (rollout.window_blocks - 1 - len(sinks)))
    return (*sinks, *range(first_recent, block))


def evicted_blocks(rollout: RolloutConfig, block: int, held: Iterable[int], first_sink: int = 0) -> list[int]:
    """Those of the blocks held, ``block`` among them, that nobody attends to once C(block) has run.

    It is ``block`` itself when the sinks leave room for nothing but the own block.
    """
    still_needed = set(attended_blocks(rollout, block + 1, first_sink))
    return [one for one in held if one not in still_needed]


def sink_shift(rollout: RolloutConfig, first_other: int, first_sink: int = 0) -> int:
    """Latent frames by which sinks stand later in time than where they were made, for passes that see ``first_other``
    as the oldest block besides them.
    """
    if rollout.sink_positions == SinkPositions.ABSOLUTE or rollout.sink_blocks == 0:
        return 0
    between = max(0, first_other - first_sink - rollout.sink_blocks)
    return between * rollout.latent_frames_per_block


def first_beside_sinks(rollout: RolloutConfig, block: int, first_sink: int = 0) -> int:
    """The oldest block that the passes of ``block`` see besides sinks; perhaps itself."""
    attended = attended_blocks(rollout, block, first_sink)
    return next((one for one in attended if one >= first_sink + rollout.sink_blocks), block)


@dataclass(frozen=True)
class ReEncoding:
    """What a new prompt does to the context of the blocks from ``block`` on: one joint pass, in which all blocks of
    ``blocks`` see each other and the sinks that stay.
    """

    blocks: range
    """Encoded again, under the new prompt."""
    seen: tuple[int, ...]
    """Sinks that keep what they hold."""
    first_sink: int
    """Where sinks begin from then on."""


def re_encoding(rollout: RolloutConfig, block: int, first_sink: int = 0) -> ReEncoding:
    """What to encode again when a new prompt holds from ``block`` on; ``blocks`` is empty where nothing is.

    It is a full window; sinks keep what they hold only once they have left it (``checkpoints`` spec section 4).
    """
    window = range(max(0, block - rollout.window_blocks), block)
    match rollout.prompt_change:
        case PromptEffect.KEEP:
            return ReEncoding(range(0), (), first_sink)
        case PromptEffect.RE_ENCODE if window.start > 0:
            num_sinks = rollout.sink_blocks
            return ReEncoding(window[num_sinks:], tuple(range(num_sinks)), first_sink)
        case _:
            return ReEncoding(window, (), window.start)


def pages_per_writer(rollout: RolloutConfig) -> int:
    """Pages that one video takes at full window in a stage that writes pages.

    Sinks whose positions move with the window are read from turned copies: a forward may hold passes of two blocks,
    with a copy for each.
    """
    turned = 2 * rollout.sink_blocks if rollout.sink_positions == SinkPositions.WINDOW else 0
    return rollout.window_blocks + turned


def pages_per_video(rollout: RolloutConfig) -> int:
    """Pages one video takes at full window, over all stages that write pages."""
    return pages_per_writer(rollout) * sum(writes_pages(rollout, stage) for stage in range(rollout.num_stages))
