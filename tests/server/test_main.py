"""The server as a process: how it starts, how it fails to, and how signals end it."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from hiar_client.boxes import BoxSplitter
from hiar_client.boxes import signal as signal_of

pytestmark = pytest.mark.in_turn

ROOT = Path(__file__).parents[2]
REAL = "from server.main import main; main()"
MAX_FILES = 64
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HIAR_")} | {
    "HIAR_DATA": "memory"
}


def run_real(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", REAL, *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)


def instant_command(pace: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.server.serve_instant", pace, "--port", "0", *arguments]


@contextmanager
def running(pace: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and its address, once it is ready."""
    command = instant_command(pace, *arguments)
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, address_when_ready(process)
        finally:
            process.kill()


def address_when_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "ready after" in line:
            found = re.search(r"http://[0-9.:]+", line)
            assert found is not None
            return found[0]
    raise AssertionError("the server never became ready")


def assert_one_line(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("hiar-server: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def test_a_bad_setting_is_one_line() -> None:
    assert_one_line(run_real("--port", "http"), "--port is 'http'", "0..65535")


def test_devices_that_do_not_go_together_are_one_line() -> None:
    assert_one_line(run_real("--devices", "cpu,cuda:0"), "cpu,cuda:0", "mix CPU and GPU")


def test_several_nodes_without_a_master_are_one_line() -> None:
    assert_one_line(run_real("--nnodes", "2", "--node-rank", "1"), "--master-addr")


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    assert_one_line(run_real("--model", str(tmp_path / "none")), str(tmp_path / "none"))


def test_a_decoder_that_the_model_has_not_is_one_line() -> None:
    assert_one_line(run_real("--decoder", "wan"), "models/tiny has no wan decoder; it has tiny only")


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*instant_command("0.1"), "--port", str(port)]
        done = subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False
        )
    assert_one_line(done, f"127.0.0.1:{port}", "in use")


def test_weights_that_do_not_load_end_the_process() -> None:
    command = instant_command("broken")
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "cannot start: model.safetensors is truncated" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ready" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_with_status_0(number: signal.Signals) -> None:
    with running("0.1") as (process, url):
        with httpx.Client(base_url=url) as kept_alive:
            assert kept_alive.get("/readyz").status_code == 200
            process.send_signal(number)
            assert process.wait(8) == 0, "it waits for a connection that asks for nothing"
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_it_outlives_more_connections_than_it_may_open() -> None:
    with running("0.01") as (process, url):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
        files, address = Path(f"/proc/{process.pid}/fd"), (httpx.URL(url).host, httpx.URL(url).port)
        with ExitStack() as silent:
            for _ in range(MAX_FILES):
                silent.enter_context(socket.create_connection(address))
            deadline = time.monotonic() + 10
            while len(list(files.iterdir())) < MAX_FILES:
                assert time.monotonic() < deadline, "connections were not accepted as far as files go"
                time.sleep(0.01)
        answer = httpx.post(f"{url}/v1/generate", json={"prompt": "x", "seconds": 1}, timeout=10)
        assert answer.status_code == 200
        assert len(list(files.iterdir())) < MAX_FILES
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr is not None
        said = process.stderr.read().splitlines()
        assert 1 <= sum("ulimit -n" in line for line in said) <= 30, "it says why, and does not flood its log"
        assert not [line for line in said if line.startswith((" ", "Traceback"))], "each time in one line"


def test_an_aborted_stream_is_one_line_in_the_log() -> None:
    with running("failing") as (process, url):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{url}/v1/generate", json={"prompt": "x"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr is not None
        logged = process.stderr.read()
    assert logged.count("a worker died") == 1
    assert "Traceback" not in logged


def test_a_stream_ends_in_band_on_sigterm() -> None:
    with running("0.3") as (process, url), httpx.stream("POST", f"{url}/v1/generate", json={"prompt": "x"}) as answer:
        splitter, boxes = BoxSplitter(), []
        for data in answer.iter_raw():
            if not boxes:
                process.send_signal(signal.SIGTERM)
            boxes += splitter.feed(data)
        payload = signal_of(boxes[-1])
        assert payload is not None
        assert payload["reason"] == "drain"
        assert process.wait(5) == 0


def test_a_second_signal_ends_at_once_and_quietly() -> None:
    with running("30") as (process, url), socket.create_connection(address_of(url)) as waiting:
        waiting.sendall(
            b"POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 15\r\n\r\n{"prompt": "x"}'
        )
        while httpx.get(f"{url}/v1/capabilities").json()["load"]["running"] == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


NODE_1 = ("--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1", "--devices", "cpu,cpu")


@contextmanager
def lending(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Node 1 of 2, once it says what it lends. Nobody listens at its master port."""
    command = [sys.executable, "-c", REAL, *NODE_1, "--master-port", "1", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "node 1 of 2: lends cpu,cpu to 127.0.0.1:2" in process.stderr.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_that_lends_its_devices_stops_with_status_0(number: signal.Signals) -> None:
    with lending() as process:
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_refused_node_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as front:
        port = front.getsockname()[1]
        command = [sys.executable, "-c", REAL, *NODE_1, "--master-port", str(port - 1), "--log-level", "error"]
        with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
            try:
                connection, _ = front.accept()
                with connection:
                    connection.recv(65536)
                    payload = b'Refusal\n[0,{"sentence":"node 1 is too old"}]'
                    connection.sendall(len(payload).to_bytes(4, "big") + payload)
                    _, shown = process.communicate(timeout=30)
            finally:
                process.kill()
    assert (process.returncode, shown) == (1, "hiar-server: node 0 refuses this node: node 1 is too old\n")
