"""Each example does what it says, against a server whose pictures show their numbers."""

import ast
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.patient import serving
from tests.examples.conftest import EXAMPLES, Installed
from tests.instant import Behaviour
from tests.media.painted import frame_numbers
from tests.painted_mp4 import PaintedMedia
from tests.players.programs import chromium, numbers_in_planes, program
from tests.server.live_server import LiveServer

PYTHON = sorted(path.name for path in EXAMPLES.glob("*.py"))
WHEEL_BYTES_MAX = 5_000_000


def run(live: LiveServer, folder: Path, *command: str | Path) -> list[str]:
    """What an example says, line by line."""
    environment = {"PATH": os.environ["PATH"], "HIAR_URL": live.url, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers(path: Path) -> list[int]:
    return frame_numbers(path.read_bytes())


def test_a_video_into_a_file(painted: LiveServer, installed: Installed, tmp_path: Path) -> None:
    said = run(painted, tmp_path, installed.python, EXAMPLES / "generate.py", "a", "red", "star")
    assert painted.engine.opened[-1].request.prompts[0].text == "a red star"
    assert said[0] == "block 0: 9 pictures, 0.56 s" and said[-1].startswith("circle.mp4: 4 s, ")
    assert numbers(tmp_path / "circle.mp4") == list(range(64))


def test_several_at_once(painted: LiveServer, installed: Installed, tmp_path: Path) -> None:
    said = run(painted, tmp_path, installed.python, EXAMPLES / "several.py")
    assert sorted(said[:3]) == ["circle.mp4: 2 s", "square.mp4: 2 s", "star.mp4: 2 s"]
    assert re.fullmatch(r"the star is \d+ of 255 bright", said[3])
    assert all(numbers(tmp_path / f"{name}.mp4") == list(range(32)) for name in ("circle", "square", "star"))


def test_a_job(painted: LiveServer, installed: Installed, tmp_path: Path) -> None:
    said = run(painted, tmp_path, installed.python, EXAMPLES / "jobs.py")
    assert "block 5: 4.00 s are done" in said and "star.mp4: 4 s, ended: completed" in said
    assert f"{painted.engine.opened[-1].id}   completed a white star spins in place at night" in said
    assert numbers(tmp_path / "star.mp4") == list(range(64))
    assert (tmp_path / "star.webp").read_bytes()[8:12] == b"WEBP"


@pytest.mark.in_turn
def test_new_prompts_on_the_way(painted: LiveServer, installed: Installed, tmp_path: Path) -> None:
    said = run(painted, tmp_path, installed.python, EXAMPLES / "steering.py")
    assert len(said) == 3 and all(re.search(r" from \d+\.\d\d s on$", line) for line in said)
    assert [told.text for told in painted.engine.opened[-1].status().prompts][1:] == [
        "a blue square on sand",
        "a white star at night",
        "a green triangle in the fog",
    ]
    shown = numbers(tmp_path / "shapes.mp4")
    assert shown == list(range(len(shown))) and len(shown) == 9 + 11 * 12


def test_the_openai_package(painted: LiveServer, installed: Installed, tmp_path: Path) -> None:
    said = run(painted, tmp_path, installed.python, "-W", "ignore", EXAMPLES / "openai_client.py")
    assert said == [f"{painted.engine.opened[-1].id} is completed"]
    assert numbers(tmp_path / "star.mp4") == list(range(64))


def test_curl(painted: LiveServer, tmp_path: Path) -> None:
    program("curl")
    assert run(painted, tmp_path, "sh", EXAMPLES / "curl.sh")[-1] == "ended"
    assert numbers(tmp_path / "streamed.mp4") == numbers(tmp_path / "job.mp4") == list(range(32))


def test_an_address_for_players(painted: LiveServer, tmp_path: Path) -> None:
    program("curl")
    (address,) = run(painted, tmp_path, "sh", EXAMPLES / "hls.sh", "2")
    read = ("-live_start_index", "0", "-i", address, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    command = (program("ffmpeg"), "-v", "error", *read)
    pictures = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert pictures.stderr == b""
    assert numbers_in_planes(pictures.stdout, 416, 240) == list(range(32))


@pytest.fixture
def site() -> Iterator[str]:
    """The examples as a web site of another origin."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(EXAMPLES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_page(site: str) -> None:
    painted = serving(Behaviour(media=PaintedMedia), cors_origins=(site,))
    with painted as live, chromium() as browser:
        page = browser.new_page()
        page.goto(f"{site}/watch.html?server={live.url}")
        page.fill("input", "a red star")
        page.click("button")
        page.wait_for_function("document.querySelector('video').ended", timeout=30_000)
        assert page.text_content("[role=status]") == live.engine.opened[-1].id
        assert live.engine.opened[-1].request.prompts[0].text == "a red star"
        seconds: float = page.evaluate("document.querySelector('video').currentTime")
        assert seconds == pytest.approx(4, abs=0.1)
        page.fill("input", "\u0007")
        page.click("button")
        page.wait_for_function("document.querySelector('[role=status]').textContent.includes('prompt')")


def test_the_wheel_is_small_and_typed(installed: Installed) -> None:
    assert installed.wheel.stat().st_size < WHEEL_BYTES_MAX
    with zipfile.ZipFile(installed.wheel) as files:
        names = files.namelist()
        metadata = files.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "hiar_client/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hiar_client"}
    assert re.findall(r"^Requires-Dist: (\S+)", metadata, re.MULTILINE) == ["httpx", "av;"]


@pytest.mark.slow
def test_types_of_the_installed_client(installed: Installed, tmp_path: Path) -> None:
    """Strictly. The openai package is large and has its own tests."""
    (tmp_path / "config.ini").write_text("[mypy]\nstrict = true\n[mypy-openai.*]\nfollow_imports = skip\n")
    command = ["mypy", "--config-file", tmp_path / "config.ini", "--python-executable", installed.python]
    command += ["--cache-dir", tmp_path, *(EXAMPLES / name for name in PYTHON)]
    done = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"Success: no issues found in {len(PYTHON)} source files\n", done.stdout


def test_the_page_about_the_examples_names_each() -> None:
    page = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.name != "README.md" and path.is_file()}
    assert set(re.findall(r"^\| \[([^\]]+)\]\(\1\)", page, re.MULTILINE)) == files
    assert all(ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) for name in PYTHON)
