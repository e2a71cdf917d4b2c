"""What the page about the client shows works as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

from hiar_client import Client
from tests.server.live_server import LiveServer

PAGE = (Path(__file__).parents[2] / "clients" / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_its_programs_run_one_after_the_other(
    painted: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = bytearray()
    with Client(painted.url) as client:
        names: dict[str, Any] = {"client": client, "send": sent.extend}
        for program in PROGRAMS:
            exec(program.replace("http://127.0.0.1:8000", painted.url), names)
            names["client"] = client  # the first one's is closed
    said = capsys.readouterr().out
    for line in ("0 9 0.5625", "completed", "blue from ", "ended", "completed 2.0", "size size: "):
        assert line in said
    assert (tmp_path / "star.mp4").stat().st_size > 0 and (tmp_path / "job.mp4").stat().st_size > 0
    assert len(PROGRAMS) == 6
