"""The real ``hiar-server`` with the model that ships: processes, sockets, encoder, decoder."""

import contextlib
import io
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import psutil
import pytest

from hiar_client import Client

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([BIN / "hiar-server", "--port", str(port), "--max-videos", "1"])
    try:
        deadline = time.monotonic() + 90
        while not _is_ready(url):
            assert process.poll() is None and time.monotonic() < deadline, "the server did not get ready"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as (address, _):
        yield address


def still_alive(processes: list[psutil.Process], within_s: float = 20.0) -> list[psutil.Process]:
    """Those that run after a while: the one that workers are forked from takes a second of CPU time to end.

    A zombie has ended; only its new parent has not noticed.
    """
    deadline = time.monotonic() + within_s
    while (alive := [one for one in processes if _runs(one)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def frames_of(data: bytes) -> list[float]:
    with av.open(io.BytesIO(data)) as container:
        return [float(frame.time or 0.0) for frame in container.decode(video=0)]


def test_a_prompt_goes_in_and_a_playing_mp4_comes_out(url: str) -> None:
    arrivals: list[float] = []
    received = bytearray()
    began = time.monotonic()
    body = {"prompt": "a red ball", "seconds": 6, "pace": "fast", "size": "96x96"}
    with httpx.stream("POST", f"{url}/v1/generate", json=body, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith('video/mp4; codecs="avc1.')
        for chunk in response.iter_raw():
            arrivals.append(time.monotonic() - began)
            received += chunk
            moments = frames_of(bytes(received))
            assert moments == [frame / 16 for frame in range(len(moments))], "not valid at a fragment boundary"
    assert len(frames_of(bytes(received))) == 96
    assert arrivals[0] < arrivals[-1] / 2, "the first fragment came with the last"
    check_steps(f"{url}/v1/videos/{response.headers['X-Video-Id']}/events")


def check_steps(events: str) -> None:
    """All steps of all blocks are told: one worker tells of each step before it tells of the block."""
    told = [json.loads(line[6:]) for line in httpx.get(events).text.splitlines() if line.startswith("data: ")]
    blocks = [event["steps"] for event in told if event["type"] == "block"]
    assert len(blocks) == 9 and all([step["step"] for step in steps] == [0, 1, 2, 3] for steps in blocks)
    for steps in blocks:
        assert sorted(steps, key=lambda step: step["began_seconds"]) == steps
    steps = sorted(itertools.chain(*blocks), key=lambda step: step["began_seconds"])
    for before, after in itertools.pairwise(steps):
        assert before["worker"] == after["worker"] == 0 and before["took_seconds"] > 0
        assert before["began_seconds"] + before["took_seconds"] <= after["began_seconds"] + 0.0002


def test_the_same_request_gives_the_same_file(url: str) -> None:
    body = {"prompt": "a red ball", "seconds": 2, "pace": "fast", "size": "96x96", "seed": 4}
    files = [httpx.post(f"{url}/v1/generate", json=body, timeout=60).content for _ in range(2)]
    assert files[0] == files[1]


def test_a_closed_connection_frees_the_place(url: str) -> None:
    body = {"prompt": "endless", "pace": "fast", "size": "96x96"}
    for _ in range(5):
        with httpx.stream("POST", f"{url}/v1/generate", json=body, timeout=60) as response:
            next(response.iter_raw())
        deadline = time.monotonic() + 2
        while httpx.get(f"{url}/v1/capabilities").json()["load"]["running"]:
            assert time.monotonic() < deadline, "the place is still taken after 2 s"
            time.sleep(0.02)


def test_the_command_line_client_writes_a_playable_file(url: str, tmp_path: Path) -> None:
    file = tmp_path / "out.mp4"
    command = [BIN / "hiar", "generate", "a red ball", "--seconds", "2.5", "--seed", "3", "-o", file, "--url", url]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert len(frames_of(file.read_bytes())) == 40


def test_the_client_library_reads_models_and_pictures(url: str) -> None:
    with Client(url) as client:
        (model,) = client.models.list()
        assert model.id == "tiny"
        with client.generate("a red ball", seconds=1) as video:
            pictures = list(video.frames())
    assert [picture.time for picture in pictures] == [number / 16 for number in range(16)]
    assert len({picture.to_ndarray(format="rgb24").tobytes() for picture in pictures}) == 16


def test_sigterm_ends_a_stream_at_a_block_and_leaves_no_process() -> None:
    with server() as (address, process):
        children = process.children(recursive=True)
        received = bytearray()
        with httpx.stream("POST", f"{address}/v1/generate", json={"prompt": "endless"}, timeout=60) as response:
            chunks = response.iter_raw()
            received += next(chunks)
            process.send_signal(signal.SIGTERM)
            for chunk in chunks:
                received += chunk
        assert b'"drain"' in received and len(frames_of(bytes(received))) >= 9
        assert process.wait(timeout=15) == 0
        assert not still_alive(children)


def test_a_killed_server_leaves_no_process() -> None:
    with server() as (_, process):
        children = process.children(recursive=True)
        assert children
        process.kill()
        assert not still_alive(children)
