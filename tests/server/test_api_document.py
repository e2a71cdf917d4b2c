"""``docs/api.md`` tells the errors that there are, and each command in it works as it stands."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.document.operations import OPERATIONS
from server.videos.schemas import PROMPT_LENGTH_MAX, PROMPTS_MAX
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.error_table import DOCUMENT, with_table
from tests.server.live_server import LiveServer, serving

TEXT = DOCUMENT.read_text()
SCRIPTS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
ROWS = re.findall(r"\| `(curl [^`]+)` \|", TEXT)


@pytest.fixture(scope="module")
def painted() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia)) as live:
        yield live


def run(live: LiveServer, script: str, folder: Path) -> str:
    """With curl's exit status made to tell of refusals."""
    shell = ["bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8000", live.url).replace("-sS", "-sSf")]
    answer = subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 0, script + answer.stdout + answer.stderr
    return answer.stdout


def test_the_errors_are_those_of_the_server() -> None:
    assert with_table(TEXT) == TEXT, "run: python -m tests.server.error_table"


def test_every_address_is_asked() -> None:
    asked = {urlsplit(url).path for url in re.findall(r"http://127\.0\.0\.1:8000[^\s\"'`]*", TEXT)}
    told = {row.path.replace("{video_id}", "$ID").replace("{n}", "0") for row in OPERATIONS if row.is_told}
    assert told - asked <= {"/v1/models/{name}"}


def test_numbers_are_the_servers() -> None:
    assert f"1 to {PROMPT_LENGTH_MAX} characters, a list of prompts {PROMPTS_MAX}" in TEXT
    assert all(json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))


@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_a_script_works_as_it_stands(painted: LiveServer, number: int, tmp_path: Path) -> None:
    run(painted, SCRIPTS[number], tmp_path)
    for path in tmp_path.iterdir():
        assert path.stat().st_size > 0


def test_the_commands_work_one_after_another(painted: LiveServer, tmp_path: Path) -> None:
    making = next(script for script in SCRIPTS if "seed" in script)
    waiting = "until curl -sS $URL/v1/videos/$ID | grep -q completed; do sleep 0.05; done"
    script = "\n".join([making, waiting.replace("$URL", painted.url), *ROWS]).replace("curl -N", "curl -sSN")
    said = run(painted, script, tmp_path)
    assert '"remixed_from_video_id":"video_' in said and '"deleted":true' in said and "#EXTM3U" in said
    names = {"star.mp4", "rest.mp4", "star.webp", "star.jpg", "init.mp4", "0.m4s"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(ROWS) > 10
