"""What follows a forward: its passes settle, or are undone, and what they took is recorded."""

import time

from engine.stage.passes import Passes
from engine.trace import Phase, Timer


def settle(passes: Passes) -> None:
    """The forward ran: the pages of its cache passes are written, and those that left the window are free."""
    for stage, due in passes.cache:
        session = stage.sessions[due.session]
        session.pages.evict_after(due.block)
        session.num_cached, session.due = due.block + 1, None


def undo(passes: Passes) -> None:
    """The forward did not run: unclaim what its cache passes claimed, and line its blocks up again."""
    for stage, due in passes.cache:
        stage.sessions[due.session].pages.unclaim(due.block)
    for denoise in passes.denoise:
        denoise.stage.arrivals.appendleft(denoise.arrival)


def record(passes: Passes, timer: Timer, began_s: float) -> None:
    """Note that the passes began then, in seconds of the monotonic clock, and ended now."""
    ended_s = time.monotonic()
    for stage, due in passes.cache:
        timer.add(Phase.CACHE, due.session, due.block, began_s, stage=stage.index, ended_s=ended_s)
    for denoise in passes.denoise:
        ticket, index = denoise.ticket, denoise.stage.index
        timer.add(Phase.DENOISE, ticket.session, ticket.block, began_s, stage=index, ended_s=ended_s)
