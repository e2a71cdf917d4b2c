"""The player at `/` in Chromium: in every state, on a desk and on a phone, dark and light, for all who use it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from engine import VideoFailed
from tests.players.conftest import Open
from tests.players.programs import AXE_JS
from tests.players.viewer import Viewer
from tests.server.live_server import LiveServer

pytestmark = pytest.mark.slow

DESK, PHONE = (1280, 800), (390, 844)
"""Width and height of the window."""
BUTTONS = {
    "ready": ("Start", "My videos"),
    "live": ("Change the prompt", "Stop", "Pause", "Fullscreen"),
    "ended": ("Start", "Play"),
    "waiting": ("Change the prompt", "Stop"),
    "failed": ("Start",),
}
"""By state, what must be in view without scrolling."""

LOOK = """async () => {
  const { violations } = await axe.run({ resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) => `${id}: ${html} ${any[0]?.message}`));
}"""


def test_every_state_fits_the_window_and_is_there_for_all(site: LiveServer, opened: Open) -> None:
    viewer = opened(site.url)
    let_axe_in(viewer)
    check_state(viewer, "ready")
    viewer.start("a red star spins in place at night, while the camera comes closer")
    viewer.sees("live")
    viewer.change("a blue square drifts to the right over a night sky, and becomes a circle")
    check_state(viewer, "live")
    guest = opened(site.url, f"?watch={site.engine.opened[-1].id}", viewport={"width": PHONE[0], "height": PHONE[1]})
    guest.sees("live")
    let_axe_in(guest)
    check_faults(guest, "live, for a guest")
    viewer.find("button", "Stop").click()
    check_state(viewer, "ended")
    with all_places_taken(site):
        viewer.start()
        check_state(viewer, "waiting")
        viewer.find("button", "Stop").click()
        viewer.sees("ended")
    viewer.expected.append("ERR_INCOMPLETE_CHUNKED_ENCODING")  # a stream is cut behind its error
    with failing(site):
        viewer.start()
        check_state(viewer, "failed")
    viewer.find("button", "My videos").click()
    check_faults(viewer, "the list of videos")
    if not AXE_JS.is_file():
        pytest.skip("axe-core is not there: make install-dev fetches it where there is npm")


@contextmanager
def all_places_taken(site: LiveServer) -> Iterator[None]:
    body = {"prompt": "x", "seconds": None, "pace": "realtime"}
    ids = [httpx.post(f"{site.url}/v1/videos", json=body).json()["id"] for _ in range(2)]
    yield
    for one in ids:
        httpx.delete(f"{site.url}/v1/videos/{one}")


@contextmanager
def failing(site: LiveServer) -> Iterator[None]:
    site.behaviour.fail_at, site.behaviour.failure = 1, VideoFailed("the passes came out wrong")
    yield
    site.behaviour.fail_at = None


def check_state(viewer: Viewer, state: str) -> None:
    """In each form and scheme: nothing lies beside the window, the main buttons are in it, and axe finds no fault."""
    viewer.sees(state)
    for (width, height), scheme in itertools.product((DESK, PHONE), ("dark", "light")):
        viewer.page.set_viewport_size({"width": width, "height": height})
        viewer.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        where = f"{state}, {width} x {height}, {scheme}"
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width, where
        assert viewer.page.evaluate("getComputedStyle(document.body).colorScheme.includes('light')"), where
        for name in BUTTONS[state]:
            box: Any = viewer.find("button", name).bounding_box()
            assert box is not None and 0 <= box["x"] <= box["x"] + box["width"] <= width, (where, name, box)
            assert 0 <= box["y"] <= box["y"] + box["height"] <= height, (where, name, box)
        if (width == DESK[0]) == (scheme == "dark"):  # a run takes long, and a scheme is the same on both
            check_faults(viewer, where)


def let_axe_in(viewer: Viewer) -> None:
    if AXE_JS.is_file():
        viewer.page.evaluate(AXE_JS.read_text())


def check_faults(viewer: Viewer, where: str) -> None:
    if AXE_JS.is_file():
        assert viewer.page.evaluate(LOOK) == [], where
