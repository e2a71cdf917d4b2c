"""Front and other nodes on loopback, with stand-ins for worker processes: joining, relaying, loss and return."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig, Nodes
from engine.errors import StartError
from engine.front import nodes as nodes_module
from engine.front import wire
from engine.front.agent import run_agent
from engine.front.hello import hello_of, manifest_digest
from engine.front.link import Link
from engine.front.nodes import NodeHub
from engine.manifest import read_manifest
from engine.messages import Cancel, InitReady, SessionClosed

TINY = read_manifest(Path("models/tiny"))


def free_port() -> int:
    """A port whose successor is free too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, suppress(OSError, OverflowError):
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def config(rank: int, port: int, num_nodes: int = 2, **settings: Any) -> EngineConfig:
    nodes = Nodes(num_nodes=num_nodes, rank=rank, master_addr="127.0.0.1", master_port=port)
    return EngineConfig(
        **{"manifest": TINY, "devices": ("cpu",) * rank or ("cpu",), "nodes": nodes, "start_timeout_s": 5.0, **settings}
    )


class FakeWorker:
    """Answers ``Cancel`` with ``SessionClosed`` and dies on request."""

    def __init__(self, opened: "list[FakeWorker]", config: EngineConfig, device: str, on_message: Any, on_lost: Any):
        self.config, self.device, self.on_message, self.on_lost = config, device, on_message, on_lost
        self.received: list[Any] = []
        self.alive, self.aborted, self.stopped = True, False, False
        opened.append(self)

    pid = None

    def send(self, message: Any) -> None:
        self.received.append(message)
        if isinstance(message, Cancel):
            self.on_message(SessionClosed(session=message.session, pages_used=0))

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            if not self.stopped:
                self.on_lost(f"the worker on {self.device} ended with exit code -9")

    def abort(self) -> None:
        self.aborted = True

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.sleep(0.01)
        self.alive = False


class Site:
    """A hub, its agents by rank, and what happened on the front's side."""

    def __init__(self, **settings: Any) -> None:
        self.port, self.settings = free_port(), settings
        self.hub = NodeHub(config(0, self.port, **settings))
        self.workers: list[FakeWorker] = []
        self.agents: list[asyncio.Task[None]] = []
        self.messages: list[Any] = []
        self.losses: list[str] = []

    def add_agent(self, rank: int = 1, leave: asyncio.Event | None = None, **settings: Any) -> "asyncio.Task[None]":
        def open_worker(*arguments: Any) -> FakeWorker:
            return FakeWorker(self.workers, *arguments)

        own = config(rank, self.port, **{**self.settings, **settings})
        agent = asyncio.create_task(run_agent(own, leave, open_worker=open_worker))
        self.agents.append(agent)
        return agent

    def open_link(self, rank: int = 1, device: str = "cpu") -> Link:
        return self.hub.open_link(rank, device, self.messages.append, self.losses.append)

    async def open_worker(self) -> tuple[Link, FakeWorker]:
        count = len(self.workers)
        link = self.open_link()
        await eventually(lambda: len(self.workers) > count)
        return link, self.workers[-1]


@asynccontextmanager
async def site(**settings: Any) -> AsyncIterator[Site]:
    here = Site(**settings)
    await here.hub.start()
    try:
        yield here
    finally:
        await here.hub.stop()
        for agent in here.agents:
            agent.cancel()
        await asyncio.gather(*here.agents, return_exceptions=True)
        assert not any(worker.alive for worker in here.workers), "an agent left a worker behind"


async def eventually(condition: Callable[[], bool], within_s: float = 4.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(15):
            await body()

    asyncio.run(bounded())


def test_nodes_join_in_any_order_and_devices_come_in_node_order() -> None:
    async def body() -> None:
        async with site(num_nodes=3) as here:
            here.add_agent(2)
            await asyncio.sleep(0.05)
            here.add_agent(1)
            assert await here.hub.wait_nodes() == ((0, "cpu"), (1, "cpu"), (2, "cpu"), (2, "cpu"))

    run(body)


def test_an_agent_may_start_before_its_front() -> None:
    async def body() -> None:
        here = Site()
        agent = here.add_agent()
        await asyncio.sleep(0.3)
        await here.hub.start()
        assert len(await here.hub.wait_nodes()) == 2
        await here.hub.stop()
        await agent

    run(body)


def test_messages_pass_both_ways_and_each_worker_gets_its_own() -> None:
    async def body() -> None:
        async with site() as here:
            here.add_agent(devices=("cpu", "cpu"))
            await here.hub.wait_nodes()
            (one, first), (two, second) = await here.open_worker(), await here.open_worker()
            two.send(Cancel(session="b"))
            one.send(Cancel(session="a"))
            await eventually(lambda: len(here.messages) == 2)
            assert here.messages == [SessionClosed(session=name, pages_used=0) for name in "ba"]
            assert (first.received, second.received) == ([Cancel(session="a")], [Cancel(session="b")])
            large = InitReady(session="s", data=bytes(20_000_000), codecs="c")
            first.on_message(large)
            await eventually(lambda: len(here.messages) == 3)
            assert here.messages[2] == large
            one.abort()
            await eventually(lambda: first.aborted)
            assert (one.pid, here.losses) == (None, [])
            await asyncio.gather(one.stop(), two.stop(), one.stop())
            assert first.stopped and not first.alive and not second.alive and not here.losses

    run(body)


def test_a_dead_worker_is_told_once_with_its_node() -> None:
    async def body() -> None:
        async with site() as here:
            here.add_agent()
            await here.hub.wait_nodes()
            link, worker = await here.open_worker()
            link.kill()
            await eventually(lambda: bool(here.losses))
            assert here.losses == ["node 1: the worker on cpu ended with exit code -9"]
            link.kill()
            link.send(Cancel(session="a"))
            await link.stop()
            assert len(here.losses) == 1 and not worker.received
            here.open_link(device="cuda:7")
            await eventually(lambda: len(here.losses) == 2)
            assert here.losses[1] == "node 1: device cuda:7 is not lent"

    run(body)


def test_a_device_of_the_front_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        here = Site()
        monkeypatch.setattr(nodes_module, "WorkerLink", lambda *arguments: FakeWorker(here.workers, *arguments))
        link = here.open_link(rank=0)
        link.send(Cancel(session="a"))
        assert here.messages == [SessionClosed(session="a", pages_used=0)]

    run(body)


def test_workers_of_other_nodes_follow_the_settings_of_the_front() -> None:
    async def body() -> None:
        async with site(max_sessions=7, poison_pages=True) as here:
            here.add_agent(max_sessions=1, poison_pages=False, num_threads=1)
            await here.hub.wait_nodes()
            _, worker = await here.open_worker()
            assert (worker.config.max_sessions, worker.config.poison_pages, worker.config.num_threads) == (7, True, 1)

    run(body)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"manifest": replace(TINY, name="other")}, "node 1 has model 'other' and node 0 has model"),
        ({"manifest": replace(TINY, rollout=replace(TINY.rollout, timestep_shift=3.0))}, "different manifests"),
        ({"num_nodes": 3}, "node 1 was told of 3 nodes and node 0 of 2"),
        ({"devices": ("cuda:0",)}, "node 1 lends 'cuda:0' and node 0 has 'cpu'"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_with_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    async def body() -> None:
        async with site() as here:
            with pytest.raises(StartError, match="node 0 refuses this node: node 1 ") as caught:
                await here.add_agent(**settings)
            assert sentence in caught.value.message

    run(body)


def test_another_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with site() as here:
            monkeypatch.setattr(wire, "version", lambda name: "9.9")
            with pytest.raises(StartError, match=r"another source \(version '9\.9'\)"):
                await here.add_agent()

    run(body)


@pytest.mark.parametrize(("ours", "theirs"), [("a", "b"), ("a", ""), ("", "b")])
def test_another_group_token_is_refused(ours: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setenv("HIAR_GROUP_TOKEN", ours)
        async with site() as here:
            monkeypatch.setenv("HIAR_GROUP_TOKEN", theirs)
            with pytest.raises(StartError, match="HIAR_GROUP_TOKEN"):
                await here.add_agent(manifest=replace(TINY, name="other"))
            monkeypatch.setenv("HIAR_GROUP_TOKEN", ours)
            here.add_agent()
            await here.hub.wait_nodes()

    run(body)


def test_file_paths_do_not_matter_and_everything_else_does() -> None:
    elsewhere = replace(TINY, transformer_file=Path("/x"), decoder_file=None, text_file=Path("/y"), tokenizer_file=None)
    assert manifest_digest(elsewhere) == manifest_digest(TINY)
    assert manifest_digest(replace(TINY, dtype="bfloat16")) != manifest_digest(TINY)
    assert "models" not in str(hello_of(config(1, 29500)))


def test_a_rank_that_is_taken_is_refused_while_its_holder_lives() -> None:
    async def body() -> None:
        async with site() as here:
            holder = here.add_agent()
            await here.hub.wait_nodes()
            link, _ = await here.open_worker()
            with pytest.raises(StartError, match=r"there is a node 1 already, at .*127\.0\.0\.1"):
                await here.add_agent()
            assert not holder.done() and not here.losses
            await link.stop()

    run(body)


def test_a_holder_that_is_silent_loses_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(nodes_module, "PROOF_OF_LIFE_S", 0.2)
        async with site() as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port + 1)
            wire.write(writer, hello_of(config(1, here.port)))
            await here.hub.wait_nodes()
            here.open_link()
            here.add_agent()
            await eventually(lambda: bool(here.losses))
            await here.open_worker()
            writer.close()

    run(body)


def test_a_lost_node_is_told_and_may_come_back() -> None:
    async def body() -> None:
        async with site() as here:
            agent = here.add_agent()
            await here.hub.wait_nodes()
            _, worker = await here.open_worker()
            here.open_link()
            agent.cancel()
            await eventually(lambda: len(here.losses) == 2)
            assert set(here.losses) == {"node 1 at 127.0.0.1 was lost"}
            assert not worker.alive
            late = here.open_link()
            await eventually(lambda: len(here.losses) == 3)
            await late.stop()
            waiting = asyncio.create_task(here.hub.wait_nodes())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            here.add_agent()
            assert await waiting == ((0, "cpu"), (1, "cpu"))
            await here.open_worker()

    run(body)


def test_a_silent_node_is_lost_after_the_stage_timeout() -> None:
    async def body() -> None:
        async with site(stage_timeout_s=0.3) as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port + 1)
            wire.write(writer, hello_of(config(1, here.port)))
            await here.hub.wait_nodes()
            here.open_link()
            began = time.monotonic()
            await eventually(lambda: bool(here.losses))
            assert 0.2 < time.monotonic() - began < 1.0
            writer.close()

    run(body)


def test_a_quiet_but_living_node_stays() -> None:
    async def body() -> None:
        async with site(stage_timeout_s=0.3) as here:
            agent = here.add_agent()
            await here.hub.wait_nodes()
            await here.open_worker()
            await asyncio.sleep(0.8)
            assert not here.losses and not agent.done()

    run(body)


def test_an_agent_that_loses_its_front_ends_its_workers_and_joins_the_next() -> None:
    async def body() -> None:
        here = Site()
        await here.hub.start()
        agent = here.add_agent()
        await here.hub.wait_nodes()
        _, worker = await here.open_worker()
        for node in here.hub._known.values():  # as if the front's process were gone
            node._writer.transport.abort()
        await eventually(lambda: not worker.alive)
        await here.hub.wait_nodes()
        await here.open_worker()
        assert len(here.workers) == 2 and not agent.done()
        await here.hub.stop()
        await agent
        assert not any(one.alive for one in here.workers)

    run(body)


def test_the_front_sends_its_nodes_home() -> None:
    async def body() -> None:
        async with site() as here:
            agent = here.add_agent()
            await here.hub.wait_nodes()
            _, worker = await here.open_worker()
            began = time.monotonic()
            await here.hub.stop()
            assert not worker.alive, "the front left before the node's workers had ended"
            await agent
            assert worker.stopped and time.monotonic() - began < 1.0

    run(body)


def test_a_node_that_is_to_leave_waits_for_its_workers() -> None:
    async def body() -> None:
        async with site() as here:
            leave = asyncio.Event()
            agent = here.add_agent(leave=leave)
            await here.hub.wait_nodes()
            link, _ = await here.open_worker()
            leave.set()
            await asyncio.sleep(0.1)
            assert not agent.done()
            await link.stop()
            await agent
            idle = asyncio.Event()
            idle.set()
            await here.add_agent(leave=idle)

    run(body)


def test_strangers_at_the_port_do_no_harm() -> None:
    async def body() -> None:
        async with site() as here:
            for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, wire.pack(wire.NodeBeat()), b"\x00", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", here.port + 1)
                writer.write(data)
                writer.write_eof()
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            here.add_agent()
            await here.hub.wait_nodes()

    run(body)


def test_a_taken_port_is_one_sentence() -> None:
    async def body() -> None:
        here = Site()
        with socket.create_server(("0.0.0.0", here.port + 1)):
            with pytest.raises(StartError) as caught:
                await here.hub.start()
            await here.hub.stop()
        assert f"port {here.port + 1}" in caught.value.message
        assert "Address already in use" in caught.value.message and "--master-port" in caught.value.message

    run(body)


def test_missing_nodes_are_named() -> None:
    async def body() -> None:
        async with site(num_nodes=4, start_timeout_s=0.2) as here:
            here.add_agent(2)
            with pytest.raises(StartError, match=r"^node 1, node 3 of 4 did not join at port \d+ within 0.2 s$"):
                await here.hub.wait_nodes()

    run(body)


def test_a_front_that_is_not_there_is_one_sentence() -> None:
    async def body() -> None:
        here = Site(start_timeout_s=0.3)
        with pytest.raises(StartError) as caught:
            await here.add_agent()
        address = f"127.0.0.1:{here.port + 1}"
        assert caught.value.message == f"node 1 did not reach node 0 at {address} within 0.3 s: Connection refused"

    run(body)
