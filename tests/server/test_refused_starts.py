"""What keeps the real server from starting: one clear sentence, exit status 1, no process left."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from engine import EngineConfig, StartError, no_gpu
from server.preflight import absent_gpu, has_no_gpu, refuse_hopeless
from tests.instant import MANIFEST
from tests.server.fake_nvml import FakeNvml

TINY = Path(__file__).parents[2] / "models" / "tiny"

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]


def refusal(*flags: str) -> str:
    return refused(*flags)[0]


def refused(*flags: str) -> tuple[str, str]:
    """The sentence, and all that was said."""
    command = [sys.executable, "-m", "tests.server.serve_rehearsal", "0.01", "--", "--port", "0", *flags]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1, answer.stderr
    said = [line for line in answer.stderr.splitlines() if "cannot start: " in line or line.startswith("hiar-server: ")]
    assert len(said) == 1 and "Traceback" not in answer.stderr, answer.stderr
    return said[0], answer.stderr


def test_a_gpu_that_is_not_there() -> None:
    assert "device cuda:3" in refusal("--devices", "cuda:30,cuda:31")  # whichever worker says it first


@pytest.mark.skipif(not has_no_gpu(pynvml), reason="this machine has a GPU, or may have one")
def test_a_machine_without_a_gpu_is_told_before_it_listens() -> None:
    said, everything = refused("--devices", "cuda:0")
    assert said == f"hiar-server: {no_gpu('cuda:0')}" and "listening" not in everything


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        (pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), True),
        (pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), True),
        (FakeNvml.NVMLError("no right"), False),
        (None, False),
    ],
    ids=["no library", "no driver", "no right", "two GPUs"],
)
def test_a_gpu_is_called_absent_only_where_that_is_sure(absent: Exception | None, told: bool) -> None:
    nvml = FakeNvml()
    nvml.absent = absent
    assert has_no_gpu(nvml, "libno-such-driver.so") is told


@pytest.mark.parametrize(
    ("devices", "visible", "is_cut", "told"),
    [
        (["cuda:0", "cuda:9"], None, False, "device cuda:9 does not exist; this machine has 2 CUDA devices"),
        (["cuda:0", "cuda:1"], "1,0", False, None),
        (["cuda:1"], "1", False, "device cuda:1 does not exist; this machine has 1 CUDA device"),
        (["cuda:1"], "0,-1,1", False, "device cuda:1 does not exist; this machine has 1 CUDA device"),
        (["cuda:0"], "", False, no_gpu("cuda:0")),
        (["cuda:9"], None, True, None),
        (["cuda:2"], "MIG-a,MIG-b", True, "device cuda:2 does not exist; this machine has 2 CUDA devices"),
    ],
)
def test_a_gpu_beyond_those_there_are(devices: list[str], visible: str | None, is_cut: bool, told: str | None) -> None:
    nvml = FakeNvml()
    nvml.is_cut = is_cut
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert absent_gpu(devices, nvml, environment) == told


def test_a_gpu_beyond_those_there_are_is_told_before_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.preflight.pynvml", FakeNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(StartError, match="device cuda:9 does not exist; this machine has 2 CUDA devices"):
        refuse_hopeless(EngineConfig(manifest=MANIFEST, devices=("cuda:9",)))


def test_cuda_without_nvml_is_left_to_the_workers() -> None:
    nvml = FakeNvml()
    nvml.absent = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    assert not has_no_gpu(nvml, "libc.so.6")  # some library that is there


def test_a_driver_that_counts_no_gpu() -> None:
    nvml = FakeNvml()
    nvml.count = 0
    assert has_no_gpu(nvml)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def leave_a_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize(
    ("part", "harm", "why"),
    [
        ("transformer.safetensors", cut, "is cut off: "),
        ("text_encoder.safetensors", Path.unlink, "does not exist"),
        ("decoder.safetensors", leave_a_pointer, "is a Git LFS pointer"),
        ("tokenizer.json", Path.unlink, "does not exist"),
    ],
)
def test_a_harmed_file_is_told_before_it_listens(
    tmp_path: Path, part: str, harm: Callable[[Path], None], why: str
) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    harm(folder / part)
    said, everything = refused("--model", str(folder))
    assert said.startswith("hiar-server: ") and f"{folder / part} {why}" in said and "fetch" in said
    assert "listening" not in everything


def test_a_group_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        nodes = ("--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1", "--master-port", str(port - 1))
        said = refusal(*nodes)
    assert f"port {port}" in said and "--master-port" in said


def test_an_http_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert f":{taken.getsockname()[1]}" in refusal("--port", str(taken.getsockname()[1]))
