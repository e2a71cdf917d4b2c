"""Front and other nodes: joining, relaying, loss and return."""

import asyncio
import time
from contextlib import closing

import pytest

from engine.fleet import nodes as nodes_module
from engine.fleet import wire
from engine.fleet.hello import hello_of
from engine.messages import Cancel, InitReady, VideoClosed
from tests.fleet.node_site import FakeWorker, Site, config, eventually, run, site

pytestmark = pytest.mark.in_turn


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
            two.send(Cancel(video="b"))
            one.send(Cancel(video="a"))
            await eventually(lambda: len(here.messages) == 2)
            assert here.messages == [VideoClosed(video=name, pages_used=0) for name in "ba"]
            assert (first.received, second.received) == ([Cancel(video="a")], [Cancel(video="b")])
            large = InitReady(video="s", data=bytes(20_000_000), codecs="c")
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
            handle, worker = await here.open_worker()
            handle.kill()
            await eventually(lambda: bool(here.losses))
            assert here.losses == ["node 1: the worker on cpu ended with exit code -9"]
            handle.kill()
            handle.send(Cancel(video="a"))
            await handle.stop()
            assert len(here.losses) == 1 and not worker.received
            here.start_worker(device="cuda:7")
            await eventually(lambda: len(here.losses) == 2)
            assert here.losses[1] == "node 1: device cuda:7 is not lent"

    run(body)


def test_a_device_of_the_front_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        here = Site()
        monkeypatch.setattr(nodes_module, "LocalWorker", lambda *arguments: FakeWorker(here.workers, *arguments))
        handle = here.start_worker(rank=0)
        handle.send(Cancel(video="a"))
        assert here.messages == [VideoClosed(video="a", pages_used=0)]

    run(body)


def test_workers_of_other_nodes_follow_the_settings_of_the_front() -> None:
    async def body() -> None:
        async with site(max_videos=7, poison_pages=True) as here:
            here.add_agent(max_videos=1, poison_pages=False, num_threads=1)
            await here.hub.wait_nodes()
            _, worker = await here.open_worker()
            assert (worker.config.max_videos, worker.config.poison_pages, worker.config.num_threads) == (7, True, 1)

    run(body)


def test_a_lost_node_is_told_and_may_come_back() -> None:
    async def body() -> None:
        async with site() as here:
            agent = here.add_agent()
            await here.hub.wait_nodes()
            _, worker = await here.open_worker()
            here.start_worker()
            agent.cancel()
            await eventually(lambda: len(here.losses) == 2)
            assert set(here.losses) == {"node 1 at 127.0.0.1 was lost"}
            assert not worker.alive
            late = here.start_worker()
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
            began = time.monotonic()
            _, writer = await asyncio.open_connection("127.0.0.1", here.port + 1)
            with closing(writer):
                wire.write(writer, hello_of(config(1, here.port)))
                await here.hub.wait_nodes()
                here.start_worker()
                await eventually(lambda: bool(here.losses))
                assert time.monotonic() - began > 0.29

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
            assert worker.stopped and time.monotonic() - began < 5.0

    run(body)


def test_a_node_that_is_to_leave_waits_for_its_workers() -> None:
    async def body() -> None:
        async with site() as here:
            leave = asyncio.Event()
            agent = here.add_agent(leave=leave)
            await here.hub.wait_nodes()
            handle, _ = await here.open_worker()
            leave.set()
            await asyncio.sleep(0.1)
            assert not agent.done()
            await handle.stop()
            await agent
            idle = asyncio.Event()
            idle.set()
            await here.add_agent(leave=idle)

    run(body)
