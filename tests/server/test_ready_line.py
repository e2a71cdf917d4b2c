"""The command that the log gives when the server is ready works as it stands, on any port, with or without ``hiar``."""

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiar_client.boxes import split
from server.metrics.gpu import GpuCollector, NvmlPoller
from server.ready_line import ready_line
from server.settings import settings_from_process
from tests.server.fake_nvml import FakeNvml, NVMLError
from tests.server.live_server import LiveServer, serving

ROOT = Path(__file__).parents[2]
RUN_HIAR = f"{shlex.quote(sys.executable)} -c 'from hiar_client.cli import main; main()'"


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("has_command", [True, False])
def test_the_example_makes_a_video(live: LiveServer, tmp_path: Path, has_command: bool) -> None:
    line = ready_line(live.url, 1.0, needs_key=False, has_command=has_command)
    example = line.partition(" run: ")[2]
    assert example.startswith("hiar " if has_command else "curl ")
    command = re.sub(r"^hiar\b", lambda _: RUN_HIAR, example)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=30)
    assert [box.kind for box in split((tmp_path / "star.mp4").read_bytes())][:2] == ["ftyp", "moov"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:8000", "-o star.mp4"),
        ("http://0.0.0.0:9000", "--url http://127.0.0.1:9000"),
        ("http://[::]:9000", "--url http://[::1]:9000"),
    ],
)
def test_the_example_has_an_address_that_can_be_asked(address: str, shown: str) -> None:
    assert ready_line(address, 1.0, needs_key=False, has_command=True).endswith(shown)


@pytest.mark.parametrize("has_command", [True, False])
def test_the_example_sends_a_key_where_one_is_needed(has_command: bool) -> None:
    assert "HIAR_KEY" in ready_line("http://127.0.0.1:8000", 1.0, needs_key=True, has_command=has_command)


def test_the_server_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        settings_from_process(["--version"])
    assert re.fullmatch(r"hiar-server \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(("device", "is_expected"), [("cuda:0", True), ("cpu", False)])
def test_no_gpu_is_told_only_where_one_was_asked_for(
    caplog: pytest.LogCaptureFixture, device: str, is_expected: bool
) -> None:
    nvml = FakeNvml()
    nvml.absent = NVMLError("library not found")
    with caplog.at_level(logging.INFO):
        NvmlPoller(nvml, GpuCollector(), [device], None).run()
    assert ("no GPU readings" in caplog.text) is is_expected
