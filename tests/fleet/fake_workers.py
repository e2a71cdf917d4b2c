"""Workers that are no processes, devices to start them on, and a clock that moves when everybody waits."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from engine.engine_config import EngineConfig, Rehearsal
from engine.fleet import group as group_module
from engine.fleet import start as start_module
from engine.fleet import supervisor as supervisor_module
from engine.fleet.start import GroupStart, Started
from engine.law.placement import PassCosts
from engine.messages import (
    Assign,
    Beat,
    Cancel,
    CloseTicket,
    CostsMeasured,
    DeviceOpened,
    EncodePrompt,
    FromWorker,
    MeasureCosts,
    MemoryUse,
    PromptEncoded,
    VideoClosed,
    WorkerFacts,
    WorkerReady,
)
from engine.request import TensorBytes
from engine.trace import Rests
from tests.front import making

COSTS = PassCosts(denoise_s=(0.1, 0.2, 0.3, 0.4), decode_s=0.1)
EMBEDDING = TensorBytes(dtype="float32", shape=(1, 1), data=bytes(4))
OPENED = DeviceOpened(kind="cpu", free_bytes=10**10, host_free_bytes=10**10, fp8=False)
READY = WorkerReady(
    facts=WorkerFacts(
        device_name="cpu",
        num_pages=8,
        page_bytes=1,
        attention="torch-sdpa",
        attentions=(),
        dtype="float32",
        encoder=None,
        codecs=None,
        takes_pictures=False,
        memory=MemoryUse(items=(), total_bytes=1),
    )
)
Result = TypeVar("Result")


def config(num_devices: int = 2, **settings: Any) -> EngineConfig:
    return making.config(devices=("cpu",) * num_devices, rehearsal=Rehearsal(pass_s=0.1), **settings)


class Clock(selectors.DefaultSelector):
    """Seconds that pass at once when the loop would wait for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits and no timer is set"
        self.now_s += timeout
        return super().select(0)


def run(monkeypatch: pytest.MonkeyPatch, body: Callable[[Clock], Coroutine[Any, Any, Result]]) -> Result:
    """Run the body on a loop with such a clock, which groups, their starts and supervisors read too."""
    clock = Clock()
    for module in (group_module, start_module, supervisor_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(clock)
        monkeypatch.setattr(loop, "time", lambda: clock.now_s)
        return loop

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(body(clock))


def beat(tickets_passed: int, pages_used: int = 0) -> Beat:
    return Beat(tickets_passed=tickets_passed, pages_used=pages_used, spans=(), rests=Rests())


@dataclass(eq=False)
class FakeWorker:
    """Does what a worker does in a start, unless its hosts say that it keeps silent or fails."""

    hosts: "FakeHosts"
    rank: int
    tell: Callable[[Any], None]
    lost: Callable[[str], None]
    alive: bool = True
    aborted: bool = False
    stopped: bool = False
    tickets_passed: int = 0
    pid: int | None = None

    def send(self, message: Any) -> None:
        self.hosts.sent.append((self.rank, message))
        for answer in self._answers(message):
            self.soon(answer)
        if type(message) is self.hosts.last:
            asyncio.get_running_loop().call_soon(self.die)

    def _answers(self, message: Any) -> Iterator[Any]:
        if type(message) in self.hosts.answers:
            instead = self.hosts.answers[type(message)]
            yield from () if instead is None else (instead,)
            return
        match message:
            case MeasureCosts():
                yield CostsMeasured(costs=COSTS, load_s=0.0)
            case Assign():
                yield READY
            case EncodePrompt():
                yield PromptEncoded(request=message.request, embedding=EMBEDDING)
            case Cancel():
                pass
            case _:
                self.tickets_passed += 1
                yield beat(self.tickets_passed)
                if isinstance(message, CloseTicket):
                    yield VideoClosed(video=message.video, pages_used=0)

    def soon(self, message: Any) -> None:
        """Say something, if it still lives by then."""
        asyncio.get_running_loop().call_soon(lambda: self.tell(message) if self.alive else None)

    def die(self, sentence: str = "the worker died") -> None:
        if self.alive:
            self.alive = False
            if not self.stopped:
                asyncio.get_running_loop().call_soon(self.lost, sentence)

    def kill(self) -> None:
        self.die("the worker was killed")

    def abort(self) -> None:
        self.aborted = True

    async def stop(self) -> None:
        self.stopped = True
        self.alive = False


@dataclass(eq=False)
class FakeHosts:
    """Devices, by default of one host. ``answers`` replaces what workers say to a message; None keeps them silent."""

    num_devices: int = 2
    answers: dict[type, Any] = field(default_factory=dict)
    opened: list[FakeWorker] = field(default_factory=list)
    """All workers there ever were."""
    sent: list[tuple[int, Any]] = field(default_factory=list)
    opens: bool = True
    """Whether devices open by themselves."""
    last: type | None = None
    """A worker dies with its answer to this kind of message."""
    num_nodes: int = 1
    """The devices take turns to be of one."""
    stopped: bool = False

    async def wait_nodes(self) -> tuple[tuple[int, str], ...]:
        return tuple((number % self.num_nodes, "cpu") for number in range(self.num_devices))

    def open_worker(
        self, node_rank: int, device: str, tell: Callable[[Any], None], lost: Callable[[str], None]
    ) -> FakeWorker:
        worker = FakeWorker(self, len(self.opened) % self.num_devices, tell, lost)
        self.opened.append(worker)
        if self.opens:
            worker.soon(OPENED)
        return worker

    async def stop(self) -> None:
        self.stopped = True

    @property
    def present(self) -> list[FakeWorker]:
        """The workers of the newest group, by rank."""
        return self.opened[-self.num_devices :]

    @property
    def kinds(self) -> list[tuple[int, str]]:
        """What was sent, in order: rank and kind."""
        return [(rank, type(message).__name__) for rank, message in self.sent]


class GroupSite:
    """A group on devices that are not there; remembers what it was told."""

    def __init__(self, num_devices: int = 2, **settings: Any) -> None:
        self.hosts = FakeHosts(num_devices)
        self.messages: list[tuple[int, FromWorker]] = []
        self.losses: list[tuple[str, frozenset[str]]] = []
        self.start = GroupStart(
            config(num_devices, **settings), self.hosts, Path(), 0, None, lambda rank, progress: None
        )
        self.group = self.start.group

    async def bring_up(self) -> Started:
        """Start the group, and let it serve."""
        started = await self.start.bring_up()
        self.group.serve(
            lambda rank, message: self.messages.append((rank, message)),
            lambda error, videos: self.losses.append((error.message, videos)),
        )
        return started

    async def watch(self, seconds: float, every_s: float = 0.25) -> None:
        """Let time pass, and look after the group as often as its supervisor does."""
        for _ in range(round(seconds / every_s)):
            await asyncio.sleep(every_s)
            await self.group.check_progress()


async def settle() -> None:
    """Let everything happen that waits for no timer."""
    for _ in range(50):
        await asyncio.sleep(0)
