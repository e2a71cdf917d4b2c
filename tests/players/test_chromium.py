"""Chromium plays videos: by hls.js, and by a plain video element."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route

from engine.messages import OpenTicket
from engine.request import Output, Quality, TensorBytes
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.players.programs import HLS_JS, make, make_all
from tests.server.live_server import serving
from tests.server.rehearsed_server import RehearsedServer

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

WATCHED = (Path(__file__).parent / "watched.js").read_text()

LINK_BYTES_S = 400_000

PLAY_HLS = """async (url) => {
  const video = document.querySelector("video");
  globalThis.seen = watch(video);
  const hls = new Hls({ startPosition: 0 });
  const told = (globalThis.told = { errors: [], fatal: [], blocks: new Set(), latencies: [] });
  hls.on(Hls.Events.ERROR, (_, data) => (data.fatal ? told.fatal : told.errors).push(data.details));
  hls.on(Hls.Events.FRAG_BUFFERED, (_, { frag }) => told.blocks.add(frag.sn));
  hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
    told.isLowLatency = told.isLowLatency || (details.live && details.canBlockReload && details.partTarget > 0);
    if (details.live) told.latencies.push(hls.latency);
  });
  hls.loadSource(url);
  hls.attachMedia(video);
  video.muted = true;
  await video.play();
  await once(video, "ended");
  return { ...told, blocks: told.blocks.size, seconds: video.currentTime, number: shownNumber(video) };
}"""

PLAY = """async (url) => {
  const video = document.querySelector("video");
  globalThis.seen = watch(video);
  video.muted = true;
  video.src = url;
  await once(video, "loadedmetadata");
  const duration = video.duration;
  await video.play();
  await once(video, "ended");
  return { duration, seconds: video.currentTime, number: shownNumber(video), seen };
}"""

LOAD = """async (url) => {
  const video = document.querySelector("video");
  video.muted = true;
  video.preload = "auto";
  video.src = url;
  await once(video, "canplay");
  return video.duration;
}"""

FEED = """async ([pieces, mime, start]) => {
  const video = document.querySelector("video");
  globalThis.seen = watch(video);
  const source = new MediaSource();
  video.muted = true;
  video.src = URL.createObjectURL(source);
  await once(source, "sourceopen");
  const buffer = source.addSourceBuffer(mime);
  for (const piece of pieces) {
    buffer.appendBuffer(Uint8Array.from(atob(piece), (letter) => letter.charCodeAt(0)));
    await once(buffer, "updateend");
  }
  source.endOfStream();
  video.currentTime = start;
  await once(video, "seeked");
  const begins = shownNumber(video);
  await video.play();
  await once(video, "ended");
  return { begins, ends: shownNumber(video), buffered: [video.buffered.start(0), video.buffered.end(0)], seen };
}"""

SEEK = """async (time) => {
  const video = document.querySelector("video");
  video.pause();
  const seeked = once(video, "seeked");
  video.currentTime = time;
  await seeked;
  return shownNumber(video);
}"""


def open_empty(page: Page, url: str) -> list[str]:
    """A page of the server's own origin with a video element. Returns the ranges that it will ask for."""
    html = "<!doctype html><title>test</title><video></video>"
    page.route(f"{url}/test", lambda route: fulfil(route, html))
    page.goto(f"{url}/test")
    page.add_script_tag(content=WATCHED)
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.all_headers().get("range", request.url)))
    return asked


def slow_down(page: Page) -> None:
    link = {"offline": False, "latency": 20, "downloadThroughput": LINK_BYTES_S, "uploadThroughput": LINK_BYTES_S}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", link)


def fulfil(route: Route, html: str) -> None:
    route.fulfill(content_type="text/html", body=html)


def test_hls_js_plays_a_running_video_to_its_end(server: RehearsedServer, page: Page) -> None:
    if not HLS_JS.is_file():
        pytest.skip("hls.js is not there: make install-dev fetches it where there is npm")
    open_empty(page, server.url)
    page.add_script_tag(path=HLS_JS)
    video = make(server.url, seconds=8, pace="realtime")
    told: dict[str, Any] = page.evaluate(PLAY_HLS, f"{video}/index.m3u8")
    assert told["fatal"] == [] and told["isLowLatency"]
    assert (told["blocks"], told["number"]) == (11, 127)
    assert told["seconds"] == pytest.approx(8, abs=0.05)


def test_a_video_element_plays_a_running_video_to_its_end(server: RehearsedServer, page: Page) -> None:
    open_empty(page, server.url)
    told = page.evaluate(PLAY, f"{make(server.url, seconds=5)}/content")
    assert told["number"] == 79 and told["seconds"] == pytest.approx(5, abs=1 / 16), (
        "its last picture has a start alone"
    )
    assert "error" not in told["seen"]


def test_a_video_that_has_run_for_sixty_days_plays(server: RehearsedServer, page: Page) -> None:
    first = 60 * 24 * 3600 * 16
    opened = OpenTicket(
        video="a",
        seed=0,
        latent_height=96 // 8,
        latent_width=96 // 8,
        fps=16,
        quality=Quality.DRAFT,
        output=Output.FRAGMENTS,
        embedding=TensorBytes(dtype="float32", shape=(0,), data=b""),
        from_frame=first,
    )
    media = PaintedMedia(opened)
    pieces = [media.init_segment, *(media.fragment(n, 12, first + 12 * n, b"") for n in range(2))]
    open_empty(page, server.url)
    mime = f'video/mp4; codecs="{media.codecs}"'
    told = page.evaluate(FEED, [[b64encode(piece).decode() for piece in pieces], mime, first / 16])
    assert told["buffered"] == [first / 16, first / 16 + 1.5] and "error" not in told["seen"]
    assert (told["begins"], told["ends"]) == (first % 2**16, (first + 23) % 2**16)


class NoisyMedia(PaintedMedia):
    """Painted numbers over noise that no encoder makes small: over 1 Mbit a second."""

    def _paint(self, number: int) -> np.ndarray:
        planes = super()._paint(number).astype(np.int16)
        return (
            (planes + np.random.default_rng(number % 8).integers(-40, 40, planes.shape)).clip(0, 255).astype(np.uint8)
        )


def test_a_video_element_knows_and_seeks_a_finished_file(page: Page) -> None:
    """Over a slow link, so that waiting for what lies between is worse than a range: few of them."""
    with serving(Behaviour(media=NoisyMedia)) as server:
        video = make_all(server.url, seconds=12, size="832x480")
        asked = open_empty(page, server.url)
        slow_down(page)
        assert page.evaluate(LOAD, f"{video}/content") == 12
        shown = [page.evaluate(SEEK, (number + 0.5) / 16) for number in (150, 3, 77, 191)]
        assert shown == [150, 3, 77, 191]
        assert any(not one.startswith("bytes=0-") for one in asked), "it fetched by ranges"
        assert len(asked) <= 10
