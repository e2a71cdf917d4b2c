"""HLS of a video over real sockets, with the real encoder's media and FFmpeg's own player of it."""

import itertools
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import httpx
import pytest

from engine import EngineOptions, WorkerLost
from engine.engine_config import Keep
from tests.instant import Behaviour
from tests.media.painted import frame_numbers
from tests.painted_mp4 import PaintedMedia
from tests.server.keyed_server import ALICE, bearer, line
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn


@pytest.fixture(scope="module")
def hls() -> Iterator[LiveServer]:
    """Blocks come three times as fast as they are played."""
    with serving(Behaviour(block_s=0.2, first_block_s=0.01, media=PaintedMedia)) as server:
        yield server


def create(live: LiveServer, **fields: object) -> str:
    told = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", **fields}).json()
    assert told["urls"]["hls"] == f"/v1/videos/{told['id']}/index.m3u8"
    return f"{live.url}/v1/videos/{told['id']}"


def lines(video: str, query: str = "") -> list[str]:
    answer = httpx.get(f"{video}/index.m3u8{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answer.headers["cache-control"] == "public, no-cache"
    return answer.text.splitlines()


def segments(playlist: list[str]) -> list[int]:
    return [int(line[7:-4]) for line in playlist if line.startswith("blocks/")]


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_player_that_begins_with_the_video_gets_every_picture(hls: LiveServer) -> None:
    """FFmpeg reloads the playlist by itself, from the first one, which has one block, to the last."""
    video = create(hls, seconds=4)
    with av.open(f"{video}/index.m3u8", options={"live_start_index": "0"}) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == [pytest.approx(n / 16) for n in range(64)]


def test_a_player_follows_by_blocking_reloads_and_hints(hls: LiveServer) -> None:
    """What LL-HLS players do: each reload waits for one more block, whose bytes the hint already named."""
    video = create(hls, seconds=4)
    playlist = lines(video)
    data, seen = httpx.get(f"{video}/init.mp4").content, 0
    for wanted in itertools.count(len(segments(playlist))):
        data += b"".join(httpx.get(f"{video}/blocks/{n}.m4s").content for n in segments(playlist)[seen:])
        seen = len(segments(playlist))
        if "#EXT-X-ENDLIST" in playlist:
            break
        hinted = [line for line in playlist if "PRELOAD-HINT" in line]
        assert hinted == ([] if wanted == 6 else [f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="blocks/{wanted}.m4s"'])
        playlist = lines(video, f"?_HLS_msn={wanted}&_HLS_part=0")
        assert segments(playlist) == list(range(min(wanted, 5) + 1))
        assert [line for line in playlist if "TARGETDURATION" in line] == ["#EXT-X-TARGETDURATION:1"]
    assert frame_numbers(data) == list(range(64))
    content = httpx.get(f"{video}/content").content
    assert frame_numbers(content) == list(range(64))


def test_what_is_not_there_says_why(hls: LiveServer) -> None:
    video = create(hls, seconds=60, pace="realtime")
    newest = segments(lines(video))[-1]
    assert error(httpx.get(f"{video}/blocks/{newest + 40}.m4s")) == (425, "too_early")
    assert error(httpx.get(f"{video}/blocks/5000.m4s")) == (404, "not_found")
    assert error(httpx.get(f"{video}/blocks/x.m4s")) == (400, "invalid_request")
    for query in ("_HLS_msn=500", "_HLS_msn=x", "_HLS_part=0", "_HLS_msn=-1", "x=1", "_HLS_msn=1&_HLS_msn=1"):
        assert error(httpx.get(f"{video}/index.m3u8?{query}")) == (400, "invalid_request"), query
    assert segments(lines(video, "?_HLS_skip=YES"))
    assert error(httpx.get(f"{hls.url}/v1/videos/none/index.m3u8")) == (404, "not_found")
    assert httpx.delete(video).status_code == 200
    assert error(httpx.get(f"{video}/blocks/0.m4s")) == (404, "not_found")


def test_who_watches_by_hls_keeps_a_video_alive_until_a_while_after(
    hls: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three target durations, which are three seconds here."""
    monkeypatch.setattr("server.videos.hls.HOLD_MIN_S", 0)
    with hls.holding() as video_id:
        video = f"{hls.url}/v1/videos/{video_id}"
        lines(video)
        eventually(lambda: httpx.get(video).json()["readers"] == 2)
    left_at = time.monotonic()
    while time.monotonic() < left_at + 4:
        newest = segments(lines(video))[-1]
        assert httpx.get(f"{video}/blocks/{newest}.m4s").status_code == 200
        time.sleep(0.3)
    told = httpx.get(video).json()
    assert (told["status"], told["readers"]) == ("in_progress", 1)
    assert told["seconds_done"] > 5.5, "it goes on as segments are taken"
    took_s = eventually(lambda: httpx.get(video).json()["status"] != "in_progress", 5)
    assert 2 < took_s < 4
    told = httpx.get(video).json()
    assert (told["status"], told["end_reason"], told["readers"]) == ("cancelled", "client_disconnect", 0)
    assert lines(video)[-1] == "#EXT-X-ENDLIST"


def test_the_window_slides_where_blocks_are_dropped() -> None:
    engine = EngineOptions(keep_endless=Keep(num_blocks=8))
    with serving(Behaviour(block_s=0.02), engine=engine) as live:
        video = create(live, seconds=None, pace="fast")
        firsts, deadline = [], time.monotonic() + 1
        while time.monotonic() < deadline:
            playlist = lines(video)
            numbers = segments(playlist)
            firsts.append(numbers[0])
            assert f"#EXT-X-MEDIA-SEQUENCE:{numbers[0]}" in playlist
            assert numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) <= 8
            assert httpx.get(f"{video}/blocks/{numbers[-1]}.m4s").status_code == 200
        assert firsts == sorted(firsts) and firsts[-1] > 10
        assert error(httpx.get(f"{video}/blocks/0.m4s")) == (410, "gone")


def test_waits_end() -> None:
    """For a block that is late, for one that the video's end takes away, and for a client that leaves."""
    with serving(Behaviour(block_s=60, first_block_s=0.01)) as live, ThreadPoolExecutor() as pool:
        video = create(live, seconds=2, pace="realtime")
        lines(video)
        late = [pool.submit(httpx.get, f"{video}/{path}") for path in ("index.m3u8?_HLS_msn=1", "blocks/1.m4s")]
        assert [error(answer.result()) for answer in late] == [(503, "late_block")] * 2
        gone = pool.submit(httpx.get, f"{video}/blocks/1.m4s")
        playlist = pool.submit(httpx.get, f"{video}/index.m3u8?_HLS_msn=1")
        time.sleep(0.2)
        live.begin(live.engine.opened[0].stop()).result(5)
        assert error(gone.result()) == (404, "not_found")
        assert playlist.result().text.endswith("#EXT-X-ENDLIST\n")
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{create(live)}/blocks/1.m4s", timeout=0.2)
        eventually(lambda: live.families.http.requests.labels("GET", ROUTE, "499")._value.get() == 1)


ROUTE = "/v1/videos/{video_id}/blocks/{n}.m4s"


def test_a_viewers_token_plays_it(tmp_path: Path) -> None:
    """What a key's object names, a player without a key plays to the end, and so does one with the key."""
    (tmp_path / "keys").write_text(line("alice", ALICE))
    with serving(Behaviour(block_s=0.1, media=PaintedMedia), keys=tmp_path / "keys") as live:
        answer = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "seconds": 2}, headers=bearer(ALICE))
        address = live.url + answer.json()["urls"]["hls"]
        assert "?token=v" in address and error(httpx.get(address.partition("?")[0])) == (401, "unauthorized")
        with av.open(address, options={"live_start_index": "0"}) as container:
            assert len(list(container.decode(video=0))) == 32
        viewers, owners = httpx.get(address), httpx.get(address.partition("?")[0], headers=bearer(ALICE))
        assert viewers.text == owners.text and viewers.text.count("?token=v") == 7
        assert viewers.headers["cache-control"] == "private, no-cache"
        uri = re.findall("blocks/2.*", viewers.text)[-1]
        segment = httpx.get(f"{address.rpartition('/index')[0]}/{uri}")
        assert (segment.status_code, segment.headers["cache-control"]) == (200, "private, max-age=3600, immutable")


def test_one_that_fails_before_its_first_block_has_no_playlist() -> None:
    with serving(Behaviour(fail_at=0, failure=WorkerLost("a worker died"))) as live:
        answer = httpx.get(f"{create(live)}/index.m3u8")
        assert error(answer) == (410, "gone") and re.search("failed before its first block", answer.text)
