"""What follows a forward: its passes settle, or are undone, and a flow becomes the block at the next noise level."""

import time

import torch
from torch import Tensor

from engine.schedule import Level
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


def predict_x0(x: Tensor, flow: Tensor, level: Level) -> Tensor:
    """The clean block, ``x - sigma * flow`` in float64, in the flow's type (spec section 3.3)."""
    return (x.double() - level.sigma * flow.double()).to(flow.dtype)


def re_noise(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """The block at a level, ``(1 - sigma) * x0 + sigma * noise`` in float32, in x0's type (spec section 3.4)."""
    return torch.lerp(x0.float(), noise.float(), level.sigma).to(x0.dtype)
