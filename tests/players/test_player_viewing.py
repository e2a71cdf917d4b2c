"""The player at `/` in Chromium, on workers that make painted pictures at once: what a viewer does and sees."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.media.painted import frame_numbers
from tests.players.conftest import Open
from tests.players.programs import program, run
from tests.players.viewer import Viewer
from tests.server.durable_server import INSTANT, durable
from tests.server.live_server import LiveServer, eventually
from tests.server.test_real_server import free_port

pytestmark = pytest.mark.slow


def test_a_prompt_is_changed_and_a_refused_one_stops_nothing(site: LiveServer, opened: Open) -> None:
    viewer = opened(site.url)
    viewer.sees("ready")
    viewer.start("a red star")
    viewer.sees("live")
    viewer.plays_on()
    chips = viewer.page.locator("#prompts > li")
    viewer.change("a blue square")
    expect(viewer.page.locator("#countdown:visible")).to_have_text(re.compile(r"^New prompt shows in \d\.\d s$"))
    expect(chips.nth(1)).to_have_attribute("data-state", "next")
    viewer.expected.append("status of 400")
    viewer.change("a bell: \a")
    note = viewer.page.locator("#prompt-note")
    expect(note).to_contain_text("prompt")
    viewer.sees("live")
    viewer.plays_on()
    expect(chips.nth(1)).to_have_attribute("data-state", "now")
    expect(chips.nth(0)).to_have_attribute("data-state", "past")
    expect(note).to_be_visible()
    viewer.change("a green ball")
    expect(note).to_be_hidden()
    expect(chips).to_have_count(3)
    assert [mark.text for mark in site.engine.opened[-1].status().prompts] == [
        "a red star",
        "a blue square",
        "a green ball",
    ]
    viewer.find("button", "Stop").click()
    viewer.sees("ended")


def test_a_third_viewer_sees_its_place_and_plays_when_one_is_free(site: LiveServer, opened: Open) -> None:
    viewers = [opened(site.url) for _ in range(3)]
    for viewer in viewers[:2]:
        viewer.start()
        viewer.sees("live")
    viewers[2].start()
    viewers[2].sees("waiting")
    expect(viewers[2].page.locator("#state")).to_have_text("Waiting, you are 1st")
    viewers[0].find("button", "Stop").click()
    viewers[2].sees("live")
    for viewer in viewers[1:]:
        viewer.find("button", "Stop").click()
        viewer.sees("ended")


def test_it_plays_on_by_itself_behind_a_killed_server(opened: Open, tmp_path: Path) -> None:
    start_server = partial(durable, *INSTANT, "painted", "--data", tmp_path, port=free_port())
    with start_server() as server:
        server.wait_ready()
        viewer = opened(server.url)
        viewer.expected.append("ERR_")
        viewer.start()
        viewer.until("appended.length >= 6")
        viewer.plays_on()
        server.kill()
        viewer.sees("lost")
    with start_server() as server:
        viewer.sees("live")
        viewer.until("appended.length >= 12")
        viewer.plays_on()
        assert viewer.shows_its_moment()
        assert viewer.appended == list(range(1, len(viewer.appended) + 1)), "a block came twice, or never"
        assert viewer.page.evaluate("video.buffered.length") == 1


def test_pause_seek_screens_and_files(site: LiveServer, opened: Open, tmp_path: Path) -> None:
    viewer = opened(site.url)
    viewer.start()
    viewer.sees("live")
    viewer.plays_on(1)
    video = site.engine.opened[-1]
    viewer.find("button", "Pause").click()
    viewer.sees("paused")
    eventually(lambda: video.status().is_paused)
    viewer.find("button", "Play").click()
    viewer.sees("live")
    viewer.plays_on()
    assert not video.status().is_paused

    check_screens(viewer)
    viewer.until("video.buffered.end(0) > 5")  # who is less behind counts as live
    viewer.find("slider", "Seek").fill("0.5")
    viewer.until("video.currentTime < 2 && !video.seeking && !video.paused")
    assert viewer.shows_its_moment()
    edge = viewer.page.locator("#live")
    expect(edge).to_have_text(re.compile(r"^Go live, \d s$"))
    edge.click()
    expect(edge).to_have_attribute("data-edge", "true")
    viewer.plays_on()

    guest = opened(site.url, f"?watch={video.id}")
    guest.sees("live")
    for one, is_late in ((viewer, False), (guest, True)):
        until_s = one.time_s
        one.page.click("#save > summary")
        with one.page.expect_download() as recent:
            one.find("button", "Last 30 seconds").click()
        numbers = check_file(recent.value.path())
        assert (numbers[0] > 0) == is_late and numbers[-1] >= until_s * 16 - 2
    viewer.find("button", "Stop").click()
    viewer.sees("ended")
    viewer.page.click("#save > summary")
    with viewer.page.expect_download() as whole:
        viewer.find("link", "Whole video").click()
    assert len(check_file(whole.value.path())) == 16 * video.status().seconds_done


def check_screens(viewer: Viewer) -> None:
    """Into fullscreen and back, and the same with a window of its own."""
    viewer.find("button", "Fullscreen").click()
    viewer.until("document.fullscreenElement?.id === 'screen'")
    viewer.find("button", "Leave fullscreen").click()
    viewer.until("!document.fullscreenElement")
    for condition in ("document.pictureInPictureElement === video", "!document.pictureInPictureElement"):
        viewer.find("button", "Picture in picture").click()
        viewer.until(condition)


def check_file(path: Path) -> list[int]:
    """See that ffprobe counts as many pictures as it tells seconds. Returns the numbers on them, which have no gap."""
    command = (program("ffprobe"), "-v", "error", "-count_frames", "-of", "json")
    entries = "format=duration,start_time:stream=nb_read_frames"
    told = json.loads(run(*command, "-show_entries", entries, str(path)))
    numbers = frame_numbers(path.read_bytes())
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert int(told["streams"][0]["nb_read_frames"]) == len(numbers)
    assert float(told["format"]["start_time"]) == 0
    assert float(told["format"]["duration"]) == pytest.approx(len(numbers) / 16, abs=0.01)
    return numbers
