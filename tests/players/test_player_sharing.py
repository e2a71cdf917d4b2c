"""The player at `/` in Chromium: who else may watch, what was made before, the keyboard, and the pipeline at work."""

import base64
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from engine import EngineOptions
from server.settings import TransportLimits
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.players.below import shown_below
from tests.players.conftest import Open
from tests.players.viewer import Viewer
from tests.server.keyed_server import ALICE, line
from tests.server.live_server import LiveServer, eventually, serving
from tests.server.media import gradient, still

pytestmark = pytest.mark.slow

DROP = """([name, base64]) => {
  const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([data], name, { type: "image/png" }));
  for (const type of ["dragover", "drop"]) {
    const event = new DragEvent(type, { dataTransfer: dropped, bubbles: true, cancelable: true });
    document.querySelector("#picture-drop").dispatchEvent(event);
  }
}"""

COLOURS = """() => {
  const canvas = document.querySelector("#pipeline");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const colour = data.slice(at, at + 3).join();
    if (data[at + 3] === 255) counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  return ["0,114,178", "240,168,50", "0,128,94", "124,197,238", "192,79,0", "227,165,199"].filter(
    (colour) => counts.get(colour) > 100,
  ).length;
}"""
"""How many blocks' colours the picture of the pipeline has."""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks for keys, below a path of another."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(line("alice", ALICE))
    engine = EngineOptions(lead_target_s=1.5)
    behaviour = Behaviour(block_s=0.05, media=PaintedMedia)
    with serving(behaviour, TransportLimits(), engine=engine, keys=keys) as live, shown_below(live.url) as url:
        yield url


def test_a_shared_link_plays_for_another_who_cannot_steer(keyed: str, opened: Open) -> None:
    owner = opened(keyed)
    expect(owner.find("dialog", "This server asks for a key")).to_be_visible()
    owner.find("textbox", "Key").fill(ALICE)
    owner.find("button", "Use it").click()
    owner.start()
    owner.sees("live")
    owner.page.click("#share > summary")
    link = owner.page.input_value("#share-link")
    assert link.startswith(f"{keyed}?")

    guest = opened(keyed, link.removeprefix(keyed))
    guest.sees("live")
    guest.plays_on()
    assert guest.shows_its_moment()
    expect(guest.find("textbox", "Prompt")).to_be_hidden()
    expect(guest.page.locator("#prompts button")).to_be_disabled()
    asked = {name: value for name, (value,) in parse_qs(urlsplit(link).query).items()}
    address = f"{keyed}v1/videos/{asked['watch']}/prompt?token={asked['token']}"
    assert httpx.post(address, json={"prompt": "y"}).status_code in {401, 403}
    owner.find("button", "Stop").click()
    guest.sees("ended")


def test_by_keyboard_alone_and_the_pipeline_is_drawn(
    site: LiveServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.behaviour, "block_s", 0.5)  # so that its steps can be seen
    viewer = opened(site.url)
    viewer.sees("ready")
    viewer.find("textbox", "Prompt").fill("a red star")
    viewer.page.keyboard.press("Control+Enter")
    viewer.sees("live")
    viewer.page.evaluate("document.activeElement.blur()")
    for key, state in (("Space", "paused"), ("Space", "live"), ("k", "paused"), ("k", "live")):
        viewer.page.keyboard.press(key)
        viewer.sees(state)
    for condition in ("document.fullscreenElement", "!document.fullscreenElement"):
        viewer.page.keyboard.press("f")
        viewer.until(condition)
    viewer.page.keyboard.press("/")
    viewer.page.keyboard.type(" f")
    expect(viewer.find("textbox", "Prompt")).to_have_value(re.compile(r" f$"))
    viewer.sees("live")

    picture = viewer.page.get_by_role("img", name=re.compile(r"^Which step .* block ([3-9]|\d\d)\b"))
    expect(picture).to_be_visible()
    assert viewer.page.evaluate(COLOURS) >= 3
    viewer.find("button", "Stop").click()
    viewer.sees("ended")


def test_a_dropped_picture_begins_a_video_which_is_found_again(site: LiveServer, opened: Open) -> None:
    viewer = opened(site.url)
    viewer.sees("ready")
    viewer.page.click("#settings-toggle")
    viewer.page.evaluate(DROP, ["star.png", base64.b64encode(still(gradient(64, 32))).decode()])
    expect(viewer.page.locator("#picture-name")).to_have_text("star.png")
    viewer.start("it begins with this", seconds="3")
    viewer.sees("live", "playing", "ended")
    assert site.engine.workers.pictures[-1].num_frames == 1
    viewer.sees("ended")

    viewer.find("button", "My videos").click()
    film = viewer.page.locator("#history-list > li").first
    expect(film).to_have_attribute("data-status", "completed")
    viewer.until("document.querySelector('#history-list img')?.naturalWidth > 0")
    film.locator("button.watch").click()
    viewer.sees("playing", "ended")
    check_length(viewer, 3)
    viewer.find("button", "My videos").click()
    film.get_by_role("button", name="Delete", exact=True).click()
    film.get_by_role("button", name="Delete for good").click()
    video = site.engine.opened[-1].id
    eventually(lambda: video not in {one.id for one in site.engine.videos})


def check_length(viewer: Viewer, seconds: float) -> None:
    viewer.until("video.duration > 0")
    assert viewer.page.evaluate("video.duration") == pytest.approx(seconds, abs=0.01)
