"""What keeps the real server from starting: one clear sentence, exit status 1, no process left."""

import socket
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.in_time]


def refusal(*flags: str) -> str:
    command = [sys.executable, "-m", "tests.server.serve_rehearsal", "0.01", "--", "--port", "0", *flags]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1, answer.stderr
    said = [line for line in answer.stderr.splitlines() if "cannot start: " in line or line.startswith("hiar-server: ")]
    assert len(said) == 1 and "Traceback" not in answer.stderr, answer.stderr
    return said[0]


def test_a_gpu_that_is_not_there() -> None:
    assert "device cuda:3" in refusal("--devices", "cuda:30,cuda:31")  # whichever worker says it first


def test_a_group_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        nodes = ("--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1", "--master-port", str(port - 1))
        said = refusal(*nodes)
    assert f"port {port}" in said and "--master-port" in said


def test_an_http_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert f":{taken.getsockname()[1]}" in refusal("--port", str(taken.getsockname()[1]))
