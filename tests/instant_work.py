"""What workers that make nothing say they did."""

import time
from collections.abc import Sequence

from engine.messages import Beat, BlockTicket
from engine.trace import Phase, Rests, Span


def passes_of(ticket: BlockTicket, ranks: Sequence[int], num_stages: int, took_s: float) -> Beat:
    """A block's denoise passes, one after the other and equally long, over the workers in order; the last ends now."""
    ended_s, each_s = time.monotonic(), took_s / num_stages
    stages = range(num_stages) if ticket.given is None else ()
    spans = [
        Span(
            phase=Phase.DENOISE,
            rank=ranks[stage * len(ranks) // num_stages],
            stage=stage,
            video=ticket.video,
            block=ticket.block,
            began_s=ended_s - (num_stages - stage) * each_s,
            ended_s=ended_s - (num_stages - stage - 1) * each_s,
        )
        for stage in stages
    ]
    return Beat(tickets_passed=0, pages_used=0, spans=tuple(spans), rests=Rests())
