"""How neighbours of a chain meet before they serve, and on which device their threads work."""

import multiprocessing
import queue
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from engine.config import Manifest, VideoConfig
from engine.engine_config import EngineConfig, Rehearsal
from engine.errors import StartError
from engine.law.placement import Placement
from engine.messages import BlockTicket, Rendezvous
from engine.stage import handover
from engine.stage.handover import Inlet, Outlet, join
from engine.stage.lane import Lane
from engine.stage.progress import Progress
from engine.stage.rigs import rig_of
from engine.trace import Timer
from tests.stage import micro

CPU, GPU = torch.device("cpu"), torch.device("cuda:3")
SHAPE = (3, 4, 2, 2)
WAIT_S = 60.0
LENGTHS = (4, 1, 2)
"""Workers of each chain."""

Log = list[tuple[str, str, int]]
"""Of transfers: the thread, which it was, and with whom."""

# --- real workers ---


def placements() -> list[Placement]:
    """The workers of all chains, by rank; the last one of each decodes."""
    result: list[Placement] = []
    for chain, length in enumerate(LENGTHS):
        for index in range(length):
            rank, is_last = len(result), index == length - 1
            result.append(
                Placement(
                    rank=rank,
                    device="cpu",
                    chain=chain,
                    stages=() if is_last and length > 1 else (index,),
                    decodes=is_last,
                    embeds_text=False,
                    previous=rank - 1 if index else None,
                    next=None if is_last else rank + 1,
                    load_s=1.0,
                )
            )
    return result


def serve(front: Connection, rendezvous: Rendezvous, placement: Placement) -> None:
    """A worker up to where it may say that it is ready: tell what was transferred by then."""
    config = EngineConfig(
        manifest=Manifest(
            name="micro",
            transformer=micro.TRANSFORMER,
            rollout=micro.rollout(),
            video=VideoConfig(sizes=((32, 32),)),
            transformer_file=Path(),
        ),
        rehearsal=Rehearsal(pass_s=0.001),
    )
    rig, progress = rig_of(config), Progress(lambda told: None)
    lane = Lane(
        config,
        placement,
        CPU,
        rig=rig,
        model=rig.network(CPU, progress) if placement.stages else None,
        decoder=rig.decoder(CPU, progress) if placement.decodes else None,
        prompts=None,
        progress=progress,
        send=lambda message: None,
    )
    log: Log = []
    for name in ("isend", "irecv"):
        setattr(dist, name, logged(log, getattr(dist, name)))
    assert front.recv() == "go"
    join(rendezvous, placement.rank, sum(LENGTHS), CPU)
    lane.connect(lambda latents: None)
    front.send(log)
    front.recv()


def logged(log: Log, transfer: Callable[[Tensor, int], Any]) -> Callable[[Tensor, int], Any]:
    def call(tensor: Tensor, neighbour: int) -> Any:
        log.append((threading.current_thread().name, transfer.__name__, neighbour))
        return transfer(tensor, neighbour)

    return call


@pytest.mark.slow
def test_every_pair_of_neighbours_has_met_before_a_worker_is_ready(tmp_path: Path) -> None:
    """In chains of several lengths, whoever comes first; each by the threads that serve later."""
    rendezvous = Rendezvous(store=f"file:{tmp_path}/store", generation=0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.stage.lane", "tests.stage.micro"])
    workers = []
    for placement in placements():
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, rendezvous, placement), daemon=True)
        process.start()
        theirs.close()
        workers.append((process, mine))
    try:
        for _, pipe in reversed(workers):  # the ends of the chains wait for their heads
            pipe.send("go")
        for placement, (_, pipe) in zip(placements(), workers, strict=True):
            assert pipe.poll(WAIT_S), f"worker {placement.rank} waits for ever"
            expected = [("inlet", "irecv", placement.previous)] if placement.previous is not None else []
            expected += [("outlet", "isend", placement.next)] if placement.next is not None else []
            assert sorted(pipe.recv()) == expected
    finally:
        for process, _ in workers:
            process.kill()
            process.join()


# --- stand-ins for torch.distributed, in this process ---


class Loop:
    """A worker that is its own neighbour: what it sends comes back to it."""

    def __init__(self) -> None:
        self.rank = 1
        self.sent: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        self.let_go = threading.Event()

    def isend(self, tensor: Tensor, target: int) -> Any:
        self.sent.put(tensor.clone())
        return SimpleNamespace(wait=lambda: None)

    def irecv(self, tensor: Tensor, source: int) -> Any:
        return SimpleNamespace(wait=lambda: tensor.copy_(self.sent.get(timeout=WAIT_S)))

    def never(self, tensor: Tensor, neighbour: int) -> Any:
        return SimpleNamespace(wait=lambda: self.let_go.wait(WAIT_S))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    standin = Loop()
    monkeypatch.setattr(dist, "isend", standin.isend)
    monkeypatch.setattr(dist, "irecv", standin.irecv)
    monkeypatch.setattr(dist, "get_rank", lambda: standin.rank)
    yield standin
    standin.let_go.set()


def inlet(source: int = 1, device: torch.device = CPU, arrived: Callable[[Tensor], None] = lambda _: None) -> Inlet:
    return Inlet(source, device, torch.float32, arrived, Timer(0))


@pytest.mark.parametrize("greeting", [(9, 1), (0, 2), (1, 0)])
def test_a_greeting_of_or_for_somebody_else_is_refused(loop: Loop, greeting: tuple[int, int]) -> None:
    loop.sent.put(torch.tensor(greeting))
    with pytest.raises(StartError) as caught:
        inlet(source=0).await_neighbour()
    sender, target = greeting
    came = f"a greeting came that worker {sender} sent to worker {target}"
    assert caught.value.message == f"worker 1 and worker 0 before it did not meet: {came}"


@pytest.mark.parametrize("name", ["isend", "irecv"])
def test_a_neighbour_that_cannot_be_reached_is_one_sentence(
    loop: Loop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tensor: Tensor, neighbour: int) -> Any:
        raise dist.DistBackendError("no way leads there\nfile, line, and what else is told")

    monkeypatch.setattr(dist, name, fail)
    end = inlet(source=0) if name == "irecv" else Outlet(2, CPU, Timer(0))
    pair = "worker 1 and worker 0 before it" if name == "irecv" else "worker 1 and worker 2 behind it"
    with pytest.raises(StartError) as caught:
        end.await_neighbour()
    assert caught.value.message == f"{pair} did not meet: no way leads there"


@pytest.mark.parametrize("name", ["isend", "irecv"])
def test_a_neighbour_that_says_nothing_is_not_waited_for_in_vain(
    loop: Loop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, name, loop.never)
    monkeypatch.setattr(handover, "JOIN_TIMEOUT", timedelta(milliseconds=50))
    end = inlet(source=0) if name == "irecv" else Outlet(2, CPU, Timer(0))
    with pytest.raises(StartError, match=r"^worker 1 and worker . \w+ it did not meet within 0:00:00.05"):
        end.await_neighbour()


# --- devices of threads ---


class StandInCuda:
    """The entry points of a device that this package uses, and tensors on it; each call is noted by its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for name in ("set_device", "synchronize", "empty_cache", "default_stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, self._entry(name))
        monkeypatch.setattr(torch.cuda, "Stream", self._entry("Stream"))
        monkeypatch.setattr(torch.cuda, "Event", self._entry("Event"))
        monkeypatch.setattr(torch.cuda, "stream", self._on_stream)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self._note("record_stream", stream))
        for name in ("empty", "zeros", "tensor"):
            monkeypatch.setattr(torch, name, self._made_on_host(getattr(torch, name)))

    def _note(self, name: str, argument: Any) -> None:
        self.calls[threading.current_thread().name].append((name, argument))

    def _entry(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._note(name, args[0] if args else None)
            noted = {call: self._entry(f"{name}.{call}") for call in ("wait", "record")}
            return SimpleNamespace(**noted, synchronize=self._entry(f"{name}.synchronize"))

        return call

    @contextmanager
    def _on_stream(self, stream: Any) -> Iterator[None]:
        self._note("stream", stream)
        yield

    def _made_on_host(self, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any, device: torch.device | None = None, **kwargs: Any) -> Tensor:
            if device is not None and device.type == "cuda":
                self._note(make.__name__, device)
            return make(*args, **kwargs)

        return call


@pytest.mark.parametrize("device", [CPU, GPU])
def test_threads_that_transfer_make_their_workers_device_current_first(
    loop: Loop, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything else that touches a device: another one's context would be made otherwise."""
    cuda, arrived = StandInCuda(monkeypatch), queue.SimpleQueue[Tensor]()
    outlet, receiver = Outlet(1, device, Timer(0)), inlet(device=device, arrived=arrived.put)
    outlet.await_neighbour()
    receiver.await_neighbour()
    for block in range(3):
        ticket = BlockTicket(video="a", block=block, num_frames=12, last=False)
        receiver.expect(ticket, SHAPE)
        outlet.send(ticket, torch.full(SHAPE, float(block)))
    received = [arrived.get(timeout=WAIT_S) for _ in range(3)]
    assert [float(latents.mean()) for latents in received] == [0.0, 1.0, 2.0]
    if device == CPU:
        assert cuda.calls == {}
        return
    for thread, some in {
        "inlet": {"stream", "zeros", "default_stream", "record_stream", "Stream.synchronize"},
        "outlet": {"stream", "tensor", "Event.wait", "Stream.synchronize"},
    }.items():
        calls = cuda.calls[thread]
        assert calls[0] == ("set_device", GPU), thread
        assert some <= {name for name, _ in calls}
    names = {name for calls in cuda.calls.values() for name, _ in calls}
    assert not names & {"synchronize", "empty_cache"}, "these would wait for receives that are posted ahead"


# --- options of NCCL ---


class StandInOptions:
    """Of a process group, as this build of torch may not have them."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(min_ctas=None, max_ctas=None)
        self._timeout = timedelta(minutes=10)


@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_receive_that_waits_takes_one_block_of_threads(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(dist, "ProcessGroupNCCL", SimpleNamespace(Options=StandInOptions), raising=False)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **kwargs: asked.update(backend=backend, **kwargs))
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")
    join(Rendezvous(store=f"file:{tmp_path}/store", generation=0), 0, 2, device)
    options = asked["pg_options"]
    if device == CPU:
        assert asked["backend"] == "gloo" and options is None
        return
    assert asked["backend"] == "nccl" and "device_id" not in asked
    assert (options.config.min_ctas, options.config.max_ctas) == (1, 1)
    assert options._timeout == asked["timeout"] == handover.PATIENCE, "torch warns of two that differ"


@pytest.mark.skipif(not dist.is_nccl_available(), reason="this torch has no NCCL")
def test_torch_has_these_options() -> None:
    with warnings.catch_warnings(action="error"):
        options = handover._options(torch.device("cuda:0"))
    assert isinstance(options, dist.ProcessGroupNCCL.Options)
    assert options.config.max_ctas == options.config.min_ctas == 1


def test_a_build_without_nccl_has_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert handover._options(GPU) is None
