"""Latents between two real processes, and what becomes of one whose neighbour is gone."""

import multiprocessing
import os
import queue
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import StartError
from engine.messages import BlockTicket, Rendezvous
from engine.stage import handover
from engine.stage.handover import Inlet, Outlet, join
from engine.trace import Phase, Timer

CPU = torch.device("cpu")
SHAPES = {"a": (3, 4, 4, 6), "b": (3, 4, 2, 8)}
VIDEOS = "aababbbaabaaabbabbab"
WAIT_S = 60.0
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def tickets() -> list[BlockTicket]:
    """Twenty blocks of two videos, mixed."""
    counts = {"a": 0, "b": 0}
    result = []
    for video in VIDEOS:
        result.append(BlockTicket(video=video, block=counts[video], num_frames=12, last=False))
        counts[video] += 1
    return result


def latents(index: int) -> Tensor:
    """What goes with ticket ``index``; every second one is not contiguous."""
    frames, channels, height, width = SHAPES[VIDEOS[index]]
    content = torch.arange(frames * channels * height * width, dtype=torch.float32) + 1000.0 * index
    if index % 2:
        return content.view(width, height, channels, frames).permute(3, 2, 1, 0)
    return content.view(frames, channels, height, width)


# --- bodies of the processes ---


def spans_of(timer: Timer, count: int) -> list[tuple[Phase, str, int]]:
    """What was timed, once it is that much: a transfer is noted when it is over, which the other end may know first."""
    spans, until_s = list(timer.take()), time.monotonic() + WAIT_S / 2
    while len(spans) < count and time.monotonic() < until_s:
        time.sleep(0.001)
        spans.extend(timer.take())
    return [(span.phase, span.video, span.block) for span in spans]


def send_all(front: Connection, rendezvous: Rendezvous) -> None:
    """Rank 0: hand over all blocks when told to, and stay."""
    join(rendezvous, 0, 2, CPU)
    timer = Timer(0)
    outlet = Outlet(1, CPU, timer)
    outlet.await_neighbour()
    assert front.recv() == "go"
    with torch.inference_mode():
        for index, ticket in enumerate(tickets()):
            outlet.send(ticket, latents(index))
    assert front.recv() == "spans"
    front.send(spans_of(timer, len(VIDEOS)))
    while front.recv() == "again":
        outlet.send(tickets()[0], latents(0))


def receive_all(front: Connection, rendezvous: Rendezvous) -> None:
    """Rank 1: expect all blocks at once, tell what came and how many receives were posted at the most."""
    join(rendezvous, 1, 2, CPU)
    posted, arrived = 0, queue.SimpleQueue[Tensor]()
    timer = Timer(1)
    inlet = Inlet(0, CPU, torch.float32, arrived.put, timer)
    inlet.await_neighbour()
    irecv = dist.irecv

    def counting_irecv(tensor: Tensor, source: int) -> Any:
        nonlocal posted
        posted += 1
        return irecv(tensor, source)

    dist.irecv = counting_irecv  # type: ignore[assignment]
    for ticket in tickets():
        inlet.expect(ticket, SHAPES[ticket.video])
    front.send(posted)
    received = [arrived.get() for _ in VIDEOS]
    front.send([(tensor.shape, tensor.flatten().tolist()) for tensor in received])
    front.send(spans_of(timer, len(VIDEOS)))
    front.send(posted)
    inlet.expect(tickets()[0], SHAPES["a"])
    front.send("waits for a block that does not come")
    front.recv()


# --- a pair of them ---


@dataclass
class Neighbour:
    """A process and the pipe to it."""

    process: BaseProcess
    pipe: Connection

    def tell(self, message: str) -> None:
        self.pipe.send(message)

    def hear(self) -> Any:
        assert self.pipe.poll(WAIT_S), "it says nothing"
        return self.pipe.recv()


@contextmanager
def pair(tmp_path: Path) -> Iterator[tuple[Neighbour, Neighbour]]:
    rendezvous = Rendezvous(store=f"file:{tmp_path}/store", generation=3)
    context = multiprocessing.get_context("spawn")
    neighbours = []
    for body in (send_all, receive_all):
        mine, theirs = context.Pipe()
        process = context.Process(target=body, args=(theirs, rendezvous), daemon=True)
        process.start()
        theirs.close()
        neighbours.append(Neighbour(process, mine))
    try:
        yield neighbours[0], neighbours[1]
    finally:
        for neighbour in neighbours:
            neighbour.process.kill()
            neighbour.process.join()


@pytest.mark.slow
def test_latents_arrive_in_ticket_order_and_a_lost_neighbour_ends_a_receiver(tmp_path: Path) -> None:
    with pair(tmp_path) as (sender, receiver):
        assert receiver.hear() == handover.NUM_POSTED == 2, "receives are posted ahead, and only so many"
        sender.tell("go")
        received = receiver.hear()
        expected = [(SHAPES[VIDEOS[index]], latents(index).flatten().tolist()) for index in range(len(VIDEOS))]
        assert received == expected
        order = [(ticket.video, ticket.block) for ticket in tickets()]
        assert receiver.hear() == [(Phase.RECEIVE, *one) for one in order]
        assert receiver.hear() == len(VIDEOS)
        sender.tell("spans")
        assert sender.hear() == [(Phase.SEND, *one) for one in order]
        receiver.hear()
        assert receiver.process.is_alive()
        sender.process.kill()
        receiver.process.join(WAIT_S)
        assert receiver.process.exitcode == 1


@pytest.mark.slow
def test_a_lost_neighbour_ends_a_sender(tmp_path: Path) -> None:
    with pair(tmp_path) as (sender, receiver):
        receiver.hear()
        sender.tell("go")
        sender.tell("spans")
        sender.hear()
        receiver.process.kill()
        receiver.process.join(WAIT_S)
        while sender.process.is_alive():
            try:
                sender.tell("again")
                time.sleep(0.001)  # sent without a pause they would keep the thread that sends from its turn
            except ConnectionError:
                sender.process.join(WAIT_S)
        assert sender.process.exitcode == 1


# --- meeting ---


@contextmanager
def bound(*, listens: bool) -> Iterator[int]:
    """A port that nobody else can take."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if listens:
            place.listen()
        yield place.getsockname()[1]


@pytest.fixture(autouse=True)
def no_interface_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in INTERFACES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("rank", "listens", "reason"),
    [
        (0, True, "the port is taken; choose another with --master-port"),
        (1, False, ".*timed out.*"),
    ],
)
def test_a_meeting_that_fails_is_one_sentence(
    rank: int, listens: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head finds its port taken; another worker finds nobody there."""
    monkeypatch.setattr(handover, "JOIN_TIMEOUT", timedelta(milliseconds=300))
    with bound(listens=listens) as port:
        place = f"tcp:127.0.0.1:{port}"
        with pytest.raises(StartError) as caught:
            join(Rendezvous(store=place, generation=0), rank, 2, CPU)
    assert re.fullmatch(f"worker {rank} could not meet the others at {place}: {reason}", caught.value.message)
    assert not dist.is_initialized()


@pytest.mark.parametrize("named", [None, "none0"])
def test_workers_meet_at_the_interface_that_leads_there_unless_one_is_named(
    named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "JOIN_TIMEOUT", timedelta(milliseconds=300))
    if named is not None:
        monkeypatch.setenv(INTERFACES[0], named)
    with bound(listens=True) as port, pytest.raises(StartError):
        join(Rendezvous(store=f"tcp:127.0.0.1:{port}", generation=0), 0, 2, CPU)
    assert [os.environ[name] for name in INTERFACES] == [named or "lo", "lo"]
