"""The content of videos over real sockets: as a file, in parts, while it is made, and as pictures."""

from collections.abc import Iterator

import av
import cv2
import httpx
import numpy as np
import pytest

from engine import EngineOptions
from engine.engine_config import Keep
from tests.instant import Behaviour
from tests.media.painted import frame_numbers, number_in
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.in_turn


@pytest.fixture(scope="module")
def files() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia)) as server:
        yield server


@pytest.fixture(scope="module")
def ended(files: LiveServer) -> str:
    """The address of a video of 13 blocks, 9 s."""
    video = create(files, seconds=9)
    eventually(lambda: httpx.get(video).json()["status"] == "completed", 20)
    return f"{video}/content"


def create(live: LiveServer, **fields: object) -> str:
    told = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x", "size": "416x240", **fields}).json()
    return f"{live.url}/v1/videos/{told['id']}"


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_an_ended_video_is_a_file(ended: str) -> None:
    answer = httpx.get(ended)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith('video/mp4; codecs="avc1.')
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert (answer.headers["accept-ranges"], answer.content[4:8]) == ("bytes", b"ftyp")
    assert frame_numbers(answer.content) == list(range(9 * 16))
    head = httpx.head(ended)
    same = ("content-length", "etag", "accept-ranges", "content-type")
    assert head.status_code == 200 and head.content == b""
    assert [head.headers[name] for name in same] == [answer.headers[name] for name in same]


def test_parts_of_it(ended: str) -> None:
    whole = httpx.get(ended)
    data, tag = whole.content, whole.headers["etag"]
    for asked, part in (
        ("bytes=0-", range(len(data))),
        ("bytes=0-99", range(100)),
        ("bytes=1000-30000", range(1000, min(30001, len(data)))),
        ("bytes=-77", range(len(data) - 77, len(data))),
    ):
        answer = httpx.get(ended, headers={"Range": asked, "If-Range": tag})
        assert (answer.status_code, answer.content) == (206, data[part.start : part.stop]), asked
        assert answer.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/{len(data)}"
        assert int(answer.headers["content-length"]) == len(part)
        head = httpx.head(ended, headers={"Range": asked})
        assert (head.status_code, head.headers["content-length"]) == (206, str(len(part)))
    beyond = httpx.get(ended, headers={"Range": f"bytes={len(data)}-"})
    assert error(beyond) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(data)}"
    assert httpx.get(ended, headers={"Range": "bytes=5-", "If-Range": '"other"'}).content == data
    known = httpx.get(ended, headers={"If-None-Match": tag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)


def test_a_player_seeks_over_http_with_few_requests(files: LiveServer, ended: str) -> None:
    requests = files.families.http.requests.labels("GET", "/v1/videos/{video_id}/content", "206")
    before = requests._value.get()
    with av.open(ended) as container:
        assert container.duration == 9_000_000
        container.seek(7_000_000)
        number = number_in(next(container.decode(video=0)).to_ndarray(format="yuv420p"))
    assert number == 9 + 12 * 8, "the first picture of the block that is played after 7 s"
    assert 0 < requests._value.get() - before <= 4


def test_one_that_is_made_is_a_stream() -> None:
    with serving(Behaviour(block_s=0.1)) as live:
        content = f"{create(live, seconds=None)}/content"
        eventually(lambda: live.engine.opened[0].kept.stop > 1)
        assert error(httpx.get(content, headers={"Range": "bytes=5-"})) == (416, "range_not_satisfiable")
        with httpx.stream("GET", content, headers={"Range": "bytes=0-"}) as answer:
            assert answer.status_code == 200 and answer.headers["accept-ranges"] == "none"
            assert "content-length" not in answer.headers and next(answer.iter_raw())[4:8] == b"ftyp"
        assert error(httpx.get(f"{content}?variant=poster")) == (400, "invalid_request")
        assert error(httpx.get(f"{content}?vriant=video")) == (400, "invalid_request")


def test_pictures_of_a_video(ended: str) -> None:
    small, sheet = httpx.get(f"{ended}?variant=thumbnail"), httpx.get(f"{ended}?variant=spritesheet")
    assert (small.headers["content-type"], small.content[8:12]) == ("image/webp", b"WEBP")
    assert (sheet.headers["content-type"], sheet.content[:2]) == ("image/jpeg", b"\xff\xd8")
    picture, cells = pixels(small), pixels(sheet)
    assert picture.shape == (240, 416) and number(picture) == 9 + 12 * 5
    assert cells.shape == (2 * 92, 10 * 160)
    found = [number(cells[row * 92 : row * 92 + 92, at * 160 : at * 160 + 160]) for row in (0, 1) for at in range(10)]
    assert found[:13] == [0, *range(9, 9 + 12 * 12, 12)] and found[13:] == [0] * 7
    assert httpx.get(ended, params={"variant": "video"}).content == httpx.get(ended).content


def pixels(answer: httpx.Response) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def number(luma: np.ndarray) -> int:
    """As it is painted, from a grey picture."""
    return number_in(np.concatenate([luma, luma[: len(luma) // 2]]))


def test_pictures_of_one_that_is_made_or_has_none() -> None:
    with serving(Behaviour(block_s=0.3, media=PaintedMedia)) as live:
        content = f"{create(live, seconds=None)}/content?variant=spritesheet"
        early = httpx.get(content)
        assert error(early) == (425, "too_early") and "retry-after" in early.headers
        eventually(lambda: live.engine.opened[0].kept.stop > 1)
        first = httpx.get(content)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-store")
        seen = live.engine.opened[0].kept.stop
        eventually(lambda: live.engine.opened[0].kept.stop > seen)
        assert httpx.get(content).content != first.content, "it shows the newest"


def test_one_whose_beginning_is_gone_is_no_file() -> None:
    with serving(engine=EngineOptions(keep_endless=Keep(num_blocks=4))) as live:
        video = create(live, seconds=None)
        eventually(lambda: live.engine.opened[0].kept.start > 0)
        httpx.post(f"{video}/cancel")
        assert error(httpx.get(f"{video}/content")) == (410, "gone")
