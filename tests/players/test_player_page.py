"""The player at `/` in Chromium: it plays by Media Source, and bears what a stream can do to it."""

import signal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.players.conftest import BROKEN_SEED
from tests.players.programs import make
from tests.players.relay import relaying
from tests.server.rehearsed_server import RehearsedServer, eventually

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

WATCHED = (Path(__file__).parent / "watched.js").read_text()

JOIN = """async (url) => {
  const [{ Feed }, { piecesOf }] = await Promise.all([import("./feed.js"), import("./stream.js")]);
  const response = await fetch(url);
  const feed = await Feed.open(video, response.headers.get("Content-Type"));
  const signals = [];
  for await (const { init, fragment, signal } of piecesOf(response, () => {})) {
    if (signal) signals.push(signal);
    else feed.append(init ?? fragment);
  }
  feed.end();
  await once(feed.source, "sourceended");
  const begins = video.buffered.start(0);
  video.currentTime = begins;
  await once(video, "seeked");
  const first = shownNumber(video);
  video.playbackRate = 4;
  await video.play();
  await once(video, "ended");
  video.currentTime = video.duration - 1 / 32; // a busy browser may not have drawn the last one
  await once(video, "seeked");
  return { begins, first, last: shownNumber(video), reason: signals.at(-1).reason };
}"""


@pytest.fixture
def player(server: RehearsedServer, page: Page) -> Page:
    """Open and ready."""
    open_player(page, server.url)
    return page


def open_player(page: Page, url: str) -> None:
    page.add_init_script(WATCHED)
    page.goto(url)
    page.evaluate("globalThis.seen = watch(video)")
    expect_state(page, "ready")


def expect_state(page: Page, name: str) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", name)


def start(player: Page, *, seed: int = 0, seconds: str = "", size: str = "96x96") -> None:
    if not player.is_visible("#settings"):
        player.click("#settings-toggle")
    player.fill("#seed", str(seed))
    player.fill("#seconds", seconds)
    player.select_option("#size", size)
    player.click("#send")


def until(player: Page, condition: str) -> None:
    """Wait in the page, whose policy lets nobody evaluate text, until it holds."""
    player.evaluate(
        f"new Promise((done) => {{ (function look() {{ {condition} ? done() : setTimeout(look, 20); }})(); }})"
    )


def ended(player: Page) -> tuple[int, bool]:
    """Wait until all is played. Returns the number in the last picture and whether an error is shown."""
    until(player, "seen.includes('ended')")
    return player.evaluate("shownNumber(video)"), player.get_attribute("#state", "data-tone") == "bad"


def test_it_plays_a_video_to_its_end(player: Page) -> None:
    start(player, seconds="4")
    assert ended(player) == (63, False)
    expect_state(player, "ended")
    assert player.evaluate("window.player.shown.told.blocks_done") == 6


def test_another_size_can_follow(player: Page) -> None:
    for size, width_px in (("96x96", 96), ("128x128", 128)):
        player.evaluate("seen.length = 0")
        start(player, seconds="2", size=size)
        assert ended(player) == (31, False)
        assert player.evaluate("video.videoWidth") == width_px


def test_a_stream_may_stall(server: RehearsedServer, player: Page) -> None:
    """Its worker stands still until the player has nothing left to show."""
    start(player, seconds="6")
    until(player, "video.currentTime > 0.5")
    server.signal_worker(0, signal.SIGSTOP)
    player.evaluate("seen.length = 0")
    until(player, "seen.includes('waiting')")
    server.signal_worker(0, signal.SIGCONT)
    assert ended(player) == (95, False)
    assert "error" not in player.evaluate("seen")


def test_a_viewer_may_stop_in_the_middle(server: RehearsedServer, player: Page) -> None:
    start(player)
    until(player, "video.currentTime > 1")
    player.click("#stop")
    expect(player.locator("#state")).to_have_text("Stopped")
    eventually(lambda: server.load()["running"] == 0, 10)
    assert player.evaluate("video.error") is None


def test_a_failure_is_told_and_what_came_before_it_plays(player: Page) -> None:
    """Blocks 0 to 2 are 33 pictures."""
    start(player, seed=BROKEN_SEED)
    expect_state(player, "failed")
    until(player, "seen.includes('ended')")
    assert player.evaluate("shownNumber(video)") == 32


def test_a_cut_connection_is_told_and_what_came_before_it_plays(server: RehearsedServer, page: Page) -> None:
    with relaying(int(server.url.rpartition(":")[2])) as relay:
        open_player(page, relay.url)
        start(page)
        until(page, "window.player.shown.playback?.next >= 4")
        relay.cut()
    expect_state(page, "lost")
    until(page, "seen.includes('waiting')")
    assert page.evaluate("shownNumber(video)") == page.evaluate("9 + (window.player.shown.playback.next - 1) * 12 - 1")


def test_a_reader_joins_in_the_middle(server: RehearsedServer, player: Page) -> None:
    """Block 3 begins with picture 33."""
    video = make(server.url, seconds=5)
    told = player.evaluate(JOIN, f"{video}/stream?from=3")
    assert told == {"begins": 33 / 16, "first": 33, "last": 79, "reason": "completed"}
