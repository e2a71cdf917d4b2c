"""Nodes and strangers that a front does not take, and what either side says when the other does not come."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StartError
from engine.fleet import nodes as nodes_module
from engine.fleet import wire
from engine.fleet.hello import hello_of, manifest_digest
from tests.fleet.node_site import TINY, Site, config, eventually, run, site

pytestmark = pytest.mark.in_turn


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"manifest": replace(TINY, name="other")}, "node 1 has model 'other' and node 0 has model"),
        ({"manifest": replace(TINY, rollout=replace(TINY.rollout, timestep_shift=7.0))}, "different manifests"),
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
            handle, _ = await here.open_worker()
            with pytest.raises(StartError, match=r"there is a node 1 already, at .*127\.0\.0\.1"):
                await here.add_agent()
            assert not holder.done() and not here.losses
            await handle.stop()

    run(body)


def test_a_holder_that_is_silent_loses_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(nodes_module, "PROOF_OF_LIFE_S", 0.2)
        async with site() as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port + 1)
            wire.write(writer, hello_of(config(1, here.port)))
            await here.hub.wait_nodes()
            here.start_worker()
            here.add_agent()
            await eventually(lambda: bool(here.losses))
            await here.open_worker()
            writer.close()

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
        async with site(num_nodes=4, start_timeout_s=1.5) as here:
            here.add_agent(2)
            with pytest.raises(StartError, match=r"^node 1, node 3 of 4 did not join at port \d+ within 1.5 s$"):
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
