"""Servers that share a PostgreSQL and a folder: jobs outlive ``kill -9``, and the one that is left takes them over."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine

from hiar_client.boxes import split
from server.videos.store import leases
from server.videos.store.leases import Leases
from server.videos.store.rows import Rows, VideoRow
from server.videos.store.schema import migrate
from tests.server.durable_server import INSTANT, REAL, durable
from tests.server.postgres_server import postgres
from tests.server.test_durable import JOBS, NUM_JOBS, restarted_amid

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


def row(video_id: str, holder: str) -> VideoRow:
    return VideoRow(id=video_id, owner="", model="m", created_at=1.0, request="{}", holder=holder)


def test_a_lease_that_is_over_is_taken_over_by_one(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(database)
    migrate(engine)
    migrate(engine)
    rows, one, two = Rows(engine), Leases(engine, is_alone=False), Leases(engine, is_alone=False)
    one.url, two.url = "http://one", "http://two"
    one.renew(), two.renew()
    rows.add(row("video_a", one.holder))
    rows.add(row("video_b", one.holder))
    assert two.take() == [] and two.holder_url("video_a") == "http://one"
    monkeypatch.setattr(leases, "LEASE_S", -1.0)
    assert one.renew() == {"video_a", "video_b"}
    assert two.holder_url("video_a") is None
    monkeypatch.undo()
    assert [taken.id for taken in two.take()] == ["video_a", "video_b"]
    assert one.renew() == frozenset() and two.take() == []
    rows.end("video_a", one.holder, 2.0, "{}", 0)
    found = rows.find("video_a")
    assert found is not None and found.ended_at is None, "who lost a video ended it"
    two.end()
    assert [taken.id for taken in one.take()] == ["video_a", "video_b"]
    for video_id in ("video_a", "video_b"):
        rows.remove(video_id)
    one.end()
    engine.dispose()


def test_jobs_outlive_the_end_of_all_processes_with_the_same_bytes(database: str, tmp_path: Path) -> None:
    """On instant workers: what the model makes of jobs is seen with SQLite, and below."""
    jobs = [{"seconds": 5}] * NUM_JOBS
    program = (*INSTANT, "0.15", "--data", tmp_path, "--database", database)
    with restarted_amid(jobs, *program) as (server, made):
        assert made == server.make(jobs)


def test_a_job_that_is_taken_over_has_the_same_bytes(database: str, tmp_path: Path) -> None:
    flags = (*REAL, "--data", tmp_path, "--database", database)
    with durable(*flags) as first, durable(*flags) as second:
        first.wait_ready()
        second.wait_ready()
        video_id = first.create(**JOBS[0])
        first.until(lambda: first.video(video_id)["blocks_done"] >= 2)
        assert first.video(video_id)["status"] == "in_progress"
        first.kill()
        ended = second.wait_ended(video_id)
        assert (ended["status"], [past["exact"] for past in ended["recoveries"]]) == ("completed", [True])
        assert [second.content(video_id)] == second.make(JOBS[:1])


class Viewer:
    """Reads a stream from any of some servers, and goes on elsewhere when it is cut."""

    def __init__(self, servers: list[str], video_id: str) -> None:
        self.servers, self.video_id = servers, video_id
        self.blocks: list[bytes] = []
        self.has_end = False
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        turn = 0
        while not self.has_end:
            address = (
                f"{self.servers[turn % len(self.servers)]}/v1/videos/{self.video_id}/stream?from={len(self.blocks)}"
            )
            turn += 1
            try:
                self._read(address)
            except httpx.HTTPError:
                time.sleep(0.1)

    def _read(self, address: str) -> None:
        with httpx.stream("GET", address, follow_redirects=True, timeout=60) as answer:
            answer.raise_for_status()
            rest = b""
            for chunk in answer.iter_raw():
                rest += chunk
                while len(rest) >= 8 and len(rest) >= (size := int.from_bytes(rest[:4], "big")):
                    box, rest = rest[:size], rest[size:]
                    if box[4:8] == b"mdat":
                        self.blocks.append(box)
                    self.has_end |= b'"type": "end"' in box


def samples(video: bytes) -> bytes:
    """What is in its ``mdat`` boxes."""
    return b"".join(box.body for box in split(video) if box.kind == "mdat")


def test_the_one_that_is_left_takes_over_and_viewers_see_a_pause(database: str, tmp_path: Path) -> None:
    flags = (*INSTANT, "0.1", "--data", tmp_path, "--database", database)
    with durable(*flags) as first, durable(*flags) as second:
        video_id = first.create(seconds=20)
        second.until(lambda: second.video(video_id)["blocks_done"] >= 3)
        assert second.video(video_id)["status"] == "in_progress"
        there = httpx.get(f"{second.url}/v1/videos/{video_id}/stream?from=0", follow_redirects=False)
        assert there.status_code == 307
        assert there.headers["location"] == f"{first.url}/v1/videos/{video_id}/stream?from=0"
        ids = {video["id"] for video in second.http.get("/v1/videos").json()["data"]}
        assert video_id in ids
        viewer = Viewer([second.url, first.url], video_id)
        first.until(lambda: len(viewer.blocks) >= 3)
        first.kill()
        ended = second.wait_ended(video_id)
        assert ended["status"] == "completed" and len(ended["recoveries"]) == 1
        viewer.thread.join(30)
        content = second.content(video_id)
        assert viewer.has_end and len(viewer.blocks) == ended["blocks_done"]
        assert samples(b"".join(viewer.blocks)) == samples(content)
        assert [content] == second.make([{"seconds": 20}])
        with durable(*flags) as third:
            assert third.content(video_id) == content


def test_a_stopped_server_hands_its_jobs_over_at_once(database: str, tmp_path: Path) -> None:
    flags = (*INSTANT, "0.05", "--data", tmp_path, "--database", database)
    with durable(*flags) as first, durable(*flags) as second:
        video_id = first.create(seconds=20)
        first.until(lambda: first.video(video_id)["blocks_done"] >= 2)
        assert first.terminate() == 0
        assert second.wait_ended(video_id)["status"] == "completed"
