"""Players of others: where they are, and what they show of a video with painted numbers."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.media.painted import number_in

TOOLS = Path(__file__).parents[2] / ".venv" / "tools"
HLS_JS, AXE_JS = TOOLS / "hls-1.7.4.js", TOOLS / "axe-4.14.1.js"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def program(name: str) -> str:
    """Its path; skips the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make install-dev installs it on Debian, as root")
    return found


def run(*command: str | Path) -> bytes:
    """What it writes. It has to say nothing else and to succeed."""
    answer = subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=60)
    assert answer.stderr == b""
    return answer.stdout


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, with an empty profile."""
    path = program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def make(url: str, **fields: object) -> str:
    """Have a video made; returns its address."""
    told = httpx.post(f"{url}/v1/videos", json={"prompt": "x", "size": "96x96", **fields}).raise_for_status().json()
    return f"{url}/v1/videos/{told['id']}"


def make_all(url: str, **fields: object) -> str:
    """The same, and wait for its end; returns its address."""
    video = make(url, **fields)
    with httpx.stream("GET", f"{video}/events", timeout=60) as events:
        last = list(events.iter_lines())[-2]
    assert '"type": "ended"' in last or '"type":"ended"' in last
    return video


def numbers_in_planes(raw: bytes, width_px: int, height_px: int) -> list[int]:
    """Of I420 pictures, one behind the other."""
    planes = np.frombuffer(raw, np.uint8).reshape(-1, height_px * 3 // 2, width_px)
    return [number_in(picture) for picture in planes]


def number_in_file(picture: Path) -> int:
    """Of a picture in any format."""
    with av.open(str(picture)) as container:
        return number_in(next(container.decode(video=0)).reformat(format="yuv420p").to_ndarray())
