"""Latents from worker to worker: one fixed-shape tensor a block ticket, in ticket order, over ``torch.distributed``.

Both ends know from the tickets what comes next, so nothing but latents travels, behind one greeting that opens the way
before anyone waits for it. Sending and receiving have a thread and, on a GPU, a stream of their own: a pass never waits
for a neighbour, and a neighbour's pass runs while latents are under way. Knows no stage and no video state.

Letters: F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import fcntl
import os
import queue
import socket
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, Store, TCPStore

from engine.errors import StartError
from engine.messages import BlockTicket, Rendezvous, RestoreTicket
from engine.trace import Phase, Timer

NUM_POSTED = 2
"""Receives that are posted ahead: one for the block a neighbour works on, one for the block behind it."""
PATIENCE = timedelta(days=30)
"""A receive may wait this long; whether a neighbour hangs is for the front's watchdog to say."""
JOIN_TIMEOUT = timedelta(minutes=10)

SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""

Shape = tuple[int, int, int, int]
Carrier = BlockTicket | RestoreTicket
"""Tickets that tensors travel with."""


def join(rendezvous: Rendezvous, rank: int, num_workers: int, device: torch.device) -> None:
    """Meet the other workers of the group. Raises ``StartError`` when that fails."""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if variable not in os.environ:
            os.environ[variable] = _interface(rendezvous)
    try:
        store = PrefixStore(f"group{rendezvous.generation}", _open_store(rendezvous, rank, num_workers))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=num_workers,
            timeout=PATIENCE,
            pg_options=_options(device),
            # No device_id: it would put all transfers on one communicator and stream, where a receive that is posted
            # ahead holds up every send behind it. Without it each pair of neighbours gets one of its own.
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in reason or "address already in use" in reason:
            reason = "the port is taken; choose another with --master-port"
        raise StartError(f"worker {rank} could not meet the others at {rendezvous.store}: {reason}") from error


def _options(device: torch.device) -> Any | None:
    """How NCCL's communicators are made; None for gloo.

    A receive that is posted ahead is a kernel that spins until the latents come. One block of threads (CTA) carries
    them fast enough; each further one would only take a multiprocessor from the passes. These options hold for every
    communicator of the group, those of two neighbours too. NCCL_MAX_CTAS, where it is set, has the last word.
    """
    if device.type != "cuda" or not dist.is_nccl_available():
        return None
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = PATIENCE  # torch warns when it differs from the one it is given beside the options
    options.config.min_ctas = options.config.max_ctas = 1
    return options


def _interface(rendezvous: Rendezvous) -> str:
    """The network interface by which the others reach this host: the one that a packet to the store would leave by.

    A host's own name often resolves to a loopback address, which gloo would take otherwise.
    """
    kind, _, place = rendezvous.store.partition(":")
    if kind == "file":
        return "lo"
    host, _, port = place.rpartition(":")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing
            own = probe.getsockname()[0]
    except OSError as error:
        raise StartError(f"there is no way to {host}: {error.strerror or error}") from error
    for _, name in socket.if_nameindex():
        if _address_of(name) == own:
            return name
    raise StartError(f"no network interface has the address {own}; name one with GLOO_SOCKET_IFNAME")


def _address_of(interface: str) -> str | None:
    """The IPv4 address of an interface, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", interface.encode()))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _open_store(rendezvous: Rendezvous, rank: int, num_workers: int) -> Store:
    kind, _, place = rendezvous.store.partition(":")
    if kind == "file":
        return FileStore(place, num_workers)
    host, _, port = place.rpartition(":")
    return TCPStore(host, int(port), is_master=rank == 0, timeout=JOIN_TIMEOUT, wait_for_workers=False)


@dataclass(frozen=True)
class Expected:
    """A receive that is posted."""

    ticket: Carrier
    latents_FCYX: Tensor
    work: dist.Work


class Inlet:
    """Latents from the previous worker."""

    def __init__(
        self,
        source: int,
        device: torch.device,
        dtype: torch.dtype,
        arrived: Callable[[Tensor], None],
        timer: Timer,
    ) -> None:
        """``arrived`` is called in ticket order, by a thread of the inlet."""
        self._rank, self._source = dist.get_rank(), source
        self._device, self._dtype = device, dtype
        self._arrived, self._timer = arrived, timer
        self._announced: deque[tuple[Carrier, Shape]] = deque()
        self._posted: queue.SimpleQueue[Expected] = queue.SimpleQueue()
        self._num_posted = 0
        self._lock = threading.Lock()
        self._stream = _own_stream(device)
        self._met: Future[None] = Future()
        _start_thread("inlet", device, self._run)

    def await_neighbour(self) -> None:
        """Block until the previous worker's greeting is here. Before that nothing may be expected.

        Raises:
            StartError: it does not come, or somebody else's comes.
        """
        _await(self._met, f"worker {self._rank} and worker {self._source} before it")

    def expect(self, ticket: Carrier, shape: Shape) -> None:
        """Latents of this ticket come after those of all tickets before it."""
        with self._lock:
            assert self._met.done(), "a block would be taken for the greeting"
            self._announced.append((ticket, shape))
            self._post()

    def _post(self) -> None:
        """Post what may be posted; the lock is held."""
        while self._announced and self._num_posted < NUM_POSTED:
            ticket, shape = self._announced.popleft()
            with _on(self._stream):
                latents = torch.empty(shape, dtype=self._dtype, device=self._device)
                work = dist.irecv(latents, self._source)
            assert work is not None, "this worker is not in the group"
            self._num_posted += 1
            self._posted.put(Expected(ticket, latents, work))

    def _run(self) -> None:
        if _settle(self._met, self._be_greeted):
            self._receive()

    def _be_greeted(self) -> None:
        """Take the greeting the way latents are taken: that makes what this pair of workers needs to talk."""
        with _on(self._stream):
            greeting = torch.zeros(2, dtype=torch.int64, device=self._device)
            work = dist.irecv(greeting, self._source)
        assert work is not None, "this worker is not in the group"
        _finish(work, self._stream)
        with _on(self._stream):
            sender, target = greeting.tolist()
        if (sender, target) != (self._source, self._rank):
            raise StartError(f"a greeting came that worker {sender} sent to worker {target}")

    def _receive(self) -> None:
        while True:
            expected = self._posted.get()
            began_s = time.monotonic()
            _finish(expected.work, self._stream)
            if self._stream is not None:
                # Keeps the allocator from reusing the buffer while passes still read it: it belongs to this stream.
                expected.latents_FCYX.record_stream(torch.cuda.default_stream(self._device))
            with self._lock:
                self._num_posted -= 1
                self._post()
            ticket, latents = expected.ticket, expected.latents_FCYX
            self._timer.add(Phase.RECEIVE, ticket.video, ticket.block, began_s, num_bytes=latents.nbytes)
            self._arrived(latents)


class Outlet:
    """Latents to the next worker."""

    def __init__(self, target: int, device: torch.device, timer: Timer) -> None:
        self._rank, self._target = dist.get_rank(), target
        self._device, self._timer = device, timer
        self._stream = _own_stream(device)
        self._waiting: queue.SimpleQueue[tuple[Carrier, Tensor, torch.cuda.Event | None]] = queue.SimpleQueue()
        self._met: Future[None] = Future()
        _start_thread("outlet", device, self._run)

    def await_neighbour(self) -> None:
        """Block until the next worker has this one's greeting. Raises ``StartError`` when it does not take it."""
        _await(self._met, f"worker {self._rank} and worker {self._target} behind it")

    def send(self, ticket: Carrier, latents_FCYX: Tensor) -> None:
        """Queue the latents; never blocks. They must not change afterwards."""
        computed = None
        if self._stream is not None:
            computed = torch.cuda.Event()
            computed.record()
        self._waiting.put((ticket, latents_FCYX.contiguous(), computed))

    def _run(self) -> None:
        if _settle(self._met, self._greet):
            self._send()

    def _greet(self) -> None:
        """Say between whom this way leads."""
        with _on(self._stream):
            greeting = torch.tensor([self._rank, self._target], dtype=torch.int64, device=self._device)
            work = dist.isend(greeting, self._target)
        assert work is not None, "this worker is not in the group"
        _finish(work, self._stream)

    def _send(self) -> None:
        while True:
            ticket, latents, computed = self._waiting.get()
            began_s = time.monotonic()
            with _on(self._stream):
                if computed is not None:
                    computed.wait()
                work = dist.isend(latents, self._target)
            assert work is not None, "this worker is not in the group"
            _finish(work, self._stream)
            self._timer.add(Phase.SEND, ticket.video, ticket.block, began_s, num_bytes=latents.nbytes)


def _finish(work: dist.Work, stream: torch.cuda.Stream | None) -> None:
    """Block this thread, and no stream that computes, until a transfer is complete."""
    with _on(stream):
        work.wait()
    if stream is not None:
        stream.synchronize()


def _own_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def _on(stream: torch.cuda.Stream | None) -> "nullcontext[None] | torch.cuda.StreamContext":
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def _settle(met: "Future[None]", meet: Callable[[], None]) -> bool:
    """Meet the neighbour and say how it went to who awaits it; returns whether it went well."""
    try:
        meet()
    except StartError as error:
        met.set_exception(error)
    except RuntimeError as error:
        met.set_exception(StartError(str(error).partition("\n")[0]))
    else:
        met.set_result(None)
    return met.exception() is None


def _await(met: "Future[None]", pair: str) -> None:
    try:
        met.result(JOIN_TIMEOUT.total_seconds())
    except TimeoutError as error:
        raise StartError(f"{pair} did not meet within {JOIN_TIMEOUT}") from error
    except StartError as error:
        raise StartError(f"{pair} did not meet: {error.message}") from error


def _start_thread(name: str, device: torch.device, body: Callable[[], None]) -> None:
    """Run a transfer loop for the life of the process.

    A transfer fails only when a neighbour is gone. The group is lost then, so this worker leaves too; the front sees
    which one was first.
    """

    def run() -> None:
        if device.type == "cuda":
            # What is current is a thread's own. Another device's context would be made on leaving a stream of this one.
            torch.cuda.set_device(device)
        is_over = False
        try:
            with torch.inference_mode():
                body()
            is_over = True
        finally:  # whatever it was: without this thread the worker would wait for ever
            if not is_over:
                traceback.print_exc()
                os._exit(1)

    threading.Thread(target=run, name=name, daemon=True).start()
