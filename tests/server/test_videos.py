"""A video as a resource: readers side by side, late and again, its life without them, and what is told of it.

Real processes, sockets and encoder; passes are sleeps, and every picture shows its number.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hiar_client.boxes import BoxSplitter
from hiar_client.client import HiarClient
from tests.media.painted import frame_numbers
from tests.server.rehearsed_server import (
    FPS,
    SIZE,
    RehearsedServer,
    Viewer,
    eventually,
    rehearsed_server,
)
from tests.server.scrape import scrape

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

PASS_S = 0.01


@pytest.fixture(scope="module")
def server() -> Iterator[RehearsedServer]:
    with rehearsed_server(PASS_S, "--max-videos", "2", "--max-queue", "2", workers=2) as running:
        yield running


def create(server: RehearsedServer, **fields: Any) -> dict[str, Any]:
    body = {"prompt": "x", "size": SIZE, "fps": FPS, **fields}
    answer = httpx.post(f"{server.url}/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/videos/{told['id']}"
    return told


def tell(server: RehearsedServer, video: str) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/v1/videos/{video}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ended(server: RehearsedServer, video: str) -> dict[str, Any]:
    eventually(lambda: tell(server, video)["status"] not in ("queued", "in_progress"), 60)
    return tell(server, video)


def delete(server: RehearsedServer, video: str) -> None:
    assert httpx.delete(f"{server.url}/v1/videos/{video}").status_code == 200


def test_two_readers_and_a_late_one_get_the_same_bytes(server: RehearsedServer) -> None:
    first = Viewer(server, seed=1, seconds=12)
    eventually(lambda: first.num_blocks >= 2, 30)
    second = Viewer(server, path=f"/v1/videos/{first.video}/stream")
    eventually(lambda: second.num_blocks >= 6, 30)
    late = Viewer(server, path=f"/v1/videos/{first.video}/stream?from=4")
    for viewer in (first, second, late):
        viewer.finish()
        assert viewer.end == {"type": "end", "reason": "completed", "last_block": len(first.blocks) - 1}
    assert first.numbers == list(range(12 * FPS))
    assert second.blocks == first.blocks and late.blocks == first.blocks[4:]
    assert second.init_segment == late.init_segment == first.init_segment
    after = Viewer(server, path=f"/v1/videos/{first.video}/content")
    after.finish()
    assert after.numbers == first.numbers and after.end is None


def test_the_event_loop_is_on_time_while_pictures_are_encoded(server: RehearsedServer) -> None:
    """Mostly: other processes of the machine may have the processor."""
    for video in [create(server, seconds=5, seed=seed, pace="fast")["id"] for seed in (1, 2)]:
        assert ended(server, video)["status"] == "completed"
    now = scrape(server.url)
    looks = now.value("hiar_event_loop_lag_seconds_count")
    assert looks >= 4 and now.value("hiar_event_loop_lag_seconds_bucket", le="0.05") >= looks / 2


def test_a_reader_cut_anywhere_goes_on_where_it_was(server: RehearsedServer) -> None:
    """Cut after every length of a prefix that ends inside, before and behind a box."""
    video = create(server, seconds=6, seed=3)["id"]
    whole = Viewer(server, path=f"/v1/videos/{video}/stream")
    whole.finish()
    data = bytes(whole.data)
    lengths = sorted({*range(1, 200, 7), *range(len(data) - 200, len(data), 13), *range(0, len(data), len(data) // 41)})
    resumed: dict[int, bytes] = {}
    for length in lengths:
        had = whole_blocks(data[:length])
        if len(had) not in resumed:
            again = Viewer(server, path=f"/v1/videos/{video}/stream?from={len(had)}")
            again.finish()
            assert again.end == whole.end
            resumed[len(had)] = b"".join(again.blocks)
        assert b"".join(had) + resumed[len(had)] == b"".join(whole.blocks)
    assert len(resumed) == len(whole.blocks) + 1


def whole_blocks(data: bytes) -> list[bytes]:
    boxes = [box for box in BoxSplitter().feed(data) if box.kind in ("moof", "mdat")]
    return [moof.data + mdat.data for moof, mdat in zip(boxes[::2], boxes[1::2], strict=False)]


def test_a_video_that_lingers_survives_its_caller_and_is_read_on(server: RehearsedServer) -> None:
    with HiarClient(server.url) as client:
        with client.generate("x", seconds=20, size=SIZE, fps=FPS, linger_seconds=20) as video:
            had = [fragment.data for _, fragment in zip(range(3), video, strict=False)]
        eventually(lambda: client.video(video.id)["readers"] == 0, 5)
        told = client.video(video.id)
        assert (told["status"], told["end_reason"]) == ("in_progress", None)
        time.sleep(1)
        with client.read(video.id, len(had)) as rest:
            assert rest.next_block == 3
            had += [fragment.data for fragment in rest]
        assert rest.end is not None and rest.end.reason == "completed"
        with client.read(video.id) as whole:
            assert [fragment.data for fragment in whole] == had
        assert client.video(video.id)["seconds_done"] == 20


def test_one_that_nobody_comes_back_to_ends(server: RehearsedServer) -> None:
    with HiarClient(server.url) as client:
        with client.generate("x", size=SIZE, fps=FPS, linger_seconds=0.5) as video:
            next(iter(video))
        assert client.video(video.id)["status"] == "in_progress"
        told = ended(server, video.id)
        assert (told["status"], told["end_reason"]) == ("cancelled", "client_disconnect")


def test_without_lingering_the_pages_are_free_at_once(server: RehearsedServer) -> None:
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    body = b'{"prompt": "x", "size": "96x96"}'
    head = "POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert connection.recv(10).startswith(b"HTTP/1.1 2")
    assert server.load()["running"] == 1
    connection.close()
    assert eventually(lambda: server.load()["running"] == 0 and server.load()["pages_used"] == 0, 5) < 2
    newest = httpx.get(f"{server.url}/v1/videos?limit=1").json()["data"][0]
    assert (newest["status"], newest["end_reason"]) == ("cancelled", "client_disconnect")


def test_a_video_is_told_after_its_end_and_deleted_once(server: RehearsedServer) -> None:
    video = create(server, seconds="2", seed=9)
    assert video["status"] in ("queued", "in_progress") and video["seconds"] == "2" and video["progress"] == 0
    told = ended(server, video["id"])
    assert (told["status"], told["progress"], told["seconds_done"], told["end_reason"]) == (
        "completed",
        100,
        2.0,
        "completed",
    )
    assert told["created_at"] == video["created_at"] <= told["completed_at"] == told["expires_at"] - 600
    assert told["bytes"] > 0 and told["error"] is None and told["object"] == "video"
    answers = [httpx.delete(f"{server.url}/v1/videos/{video['id']}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert answers[0].json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert httpx.get(f"{server.url}/v1/videos/{video['id']}").status_code == 404


def test_one_that_waits_shows_its_place_and_can_be_deleted(server: RehearsedServer) -> None:
    running = [create(server, seconds=None) for _ in range(2)]
    waiting = [create(server, seconds=None) for _ in range(2)]
    eventually(lambda: all(tell(server, one["id"])["status"] == "in_progress" for one in running), 10)
    assert [tell(server, one["id"])["queue_position"] for one in (*running, *waiting)] == [None, None, 1, 2]
    refused = httpx.post(f"{server.url}/v1/videos", json={"prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    delete(server, waiting[0]["id"])
    assert tell(server, waiting[1]["id"])["queue_position"] == 1
    for one in (*running, waiting[1]):
        delete(server, one["id"])
    assert server.load()["running"] == server.load()["waiting"] == server.load()["pages_used"] == 0


def test_a_cancelled_video_keeps_what_was_made(server: RehearsedServer) -> None:
    video = create(server, seconds=None)["id"]
    viewer = Viewer(server, path=f"/v1/videos/{video}/content")
    eventually(lambda: viewer.num_blocks >= 3, 30)
    cancelled = httpx.post(f"{server.url}/v1/videos/{video}/cancel").json()
    viewer.finish()
    assert (cancelled["status"], cancelled["end_reason"]) == ("cancelled", "cancelled")
    assert viewer.end == {"type": "end", "reason": "cancelled", "last_block": cancelled["blocks_done"] - 1}
    again = httpx.post(f"{server.url}/v1/videos/{video}/cancel").json()
    assert again == {**cancelled, "readers": 0}
    content = httpx.get(f"{server.url}/v1/videos/{video}/content")
    assert int(content.headers["content-length"]) == len(content.content)
    assert frame_numbers(content.content) == viewer.numbers


def test_a_prompt_is_changed_and_listed(server: RehearsedServer) -> None:
    video = create(server, seconds=None)["id"]
    eventually(lambda: tell(server, video)["blocks_done"] >= 2, 30)
    changed = httpx.post(f"{server.url}/v1/videos/{video}/prompt", json={"prompt": "another"}).json()
    assert changed["id"] == video and changed["block"] >= 2
    assert changed["at_seconds"] == pytest.approx((9 + 12 * (changed["block"] - 1)) / FPS)
    marks = tell(server, video)["prompts"]
    assert marks == [
        {"block": 0, "at_seconds": 0.0, "prompt": "x"},
        {"block": changed["block"], "at_seconds": changed["at_seconds"], "prompt": "another"},
    ]
    delete(server, video)


def test_the_list_goes_page_by_page(server: RehearsedServer) -> None:
    made = [create(server, seconds=0.5)["id"] for _ in range(3)]
    for video in made:
        ended(server, video)

    def page(query: str) -> tuple[list[str], bool]:
        answer = httpx.get(f"{server.url}/v1/videos?{query}").json()
        ids = [one["id"] for one in answer["data"]]
        assert (answer["first_id"], answer["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, answer["has_more"]

    assert page("limit=2")[0] == [made[2], made[1]]
    assert page(f"limit=1&after={made[1]}")[0] == [made[0]]
    everything = page("limit=100&order=asc")
    assert everything[0][-3:] == made and not everything[1]
    assert page(f"after={everything[0][0]}")[0] == []
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=video_none", "before=x", "limit=1&limit=2"):
        answer = httpx.get(f"{server.url}/v1/videos?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), query


def test_what_cannot_be_read_says_why(server: RehearsedServer) -> None:
    video = create(server, seconds=60, pace="realtime")["id"]
    stream = f"{server.url}/v1/videos/{video}/stream"
    eventually(lambda: tell(server, video)["blocks_done"] >= 1, 30)
    for query, status, code in (
        ("from=x", 400, "invalid_request"),
        ("from=-1", 400, "invalid_request"),
        ("form=1", 400, "invalid_request"),
        ("from=70", 425, "too_early"),
        ("from=5000", 410, "gone"),
    ):
        answer = httpx.get(f"{stream}?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), query
    with httpx.stream("GET", f"{stream}?from=live") as answer:
        assert answer.status_code == 200 and answer.headers["x-video-id"] == video
        chunks = answer.iter_raw()
        next(chunks)
        assert tell(server, video)["readers"] == 1
    head = httpx.head(stream)
    assert (
        head.status_code == 200 and head.content == b"" and head.headers["content-type"].startswith("video/mp4; codecs")
    )
    delete(server, video)
    assert httpx.get(stream).status_code == 404
    retired = httpx.get(f"{server.url}/v1/sessions/s_1")
    assert retired.status_code == 404 and "/v1/videos/" in retired.json()["error"]["message"]


def test_of_an_endless_video_the_newest_two_minutes_are_kept(server: RehearsedServer) -> None:
    video = create(server, seconds=None)["id"]
    eventually(lambda: tell(server, video)["first_block"] > 10, 60)
    told = tell(server, video)
    kept_s = 12 / FPS * (told["blocks_done"] - told["first_block"])
    assert 119 < kept_s <= 120
    for address in ("content", f"stream?from={told['first_block'] - 5}"):
        answer = httpx.get(f"{server.url}/v1/videos/{video}/{address}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
        assert "the earliest is" in answer.json()["error"]["message"]
    with HiarClient(server.url) as client, client.read(video, told["first_block"] + 40) as reading:
        assert next(iter(reading)).block == told["first_block"] + 40
    delete(server, video)


def test_a_deleted_video_ends_its_readers_cleanly(server: RehearsedServer) -> None:
    video = create(server, seconds=None)["id"]
    viewers = [Viewer(server, path=f"/v1/videos/{video}/stream") for _ in range(2)]
    eventually(lambda: all(viewer.num_blocks >= 2 for viewer in viewers), 30)
    delete(server, video)
    for viewer in viewers:
        viewer.finish(10)
        assert viewer.end is not None and viewer.end["reason"] == "cancelled"


def test_ended_videos_are_forgotten_in_time() -> None:
    with rehearsed_server(PASS_S, "--keep-seconds", "1", workers=1) as server:
        video = create(server, seconds=1)["id"]
        assert ended(server, video)["status"] == "completed"
        eventually(lambda: httpx.get(f"{server.url}/v1/videos/{video}").status_code == 404, 5)


def test_draining_ends_what_needs_no_reader_and_a_job_without_one_goes_on_until_then() -> None:
    with rehearsed_server(PASS_S, workers=1) as server:
        video = create(server, seconds=None, pace="realtime")["id"]
        time.sleep(2)
        assert tell(server, video)["blocks_done"] > 3, "nobody reads, and it goes on by the clock"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_many_readers_of_one_video_get_the_same(server: RehearsedServer) -> None:
    video = create(server, seconds=8, seed=5)["id"]
    viewers = [Viewer(server, path=f"/v1/videos/{video}/stream") for _ in range(20)]
    for viewer in viewers:
        viewer.finish()
    assert all(viewer.blocks == viewers[0].blocks for viewer in viewers) and viewers[0].numbers == list(range(8 * FPS))
    assert threading.active_count() < 40 and tell(server, video)["readers"] == 0
