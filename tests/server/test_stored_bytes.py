"""The bytes that a key's durable videos may take: who is refused what, and what makes room again."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import StaticPool, create_engine

from server.videos.store.rows import Rows, VideoRow
from server.videos.store.schema import migrate
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, bearer, line
from tests.server.live_server import LiveServer, eventually, serving

JOB = {"prompt": "x", "size": "416x240", "seconds": 3}
LIMIT = 2000
"""Of Alice: less than one job takes."""
PAYLOAD_BYTES = 1000
"""Of a block."""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(line("alice", ALICE, f"stored={LIMIT}") + line("bob", BOB))
    return path


def post(live: LiveServer, path: str, secret: str = ALICE, **fields: Any) -> httpx.Response:
    return httpx.post(live.url + path, json=fields, headers=bearer(secret))


def told(live: LiveServer, video_id: str) -> dict[str, Any]:
    return dict(httpx.get(f"{live.url}/v1/videos/{video_id}", headers=bearer(ALICE)).json())


def in_store(live: LiveServer, video_id: str) -> None:
    """Wait until the engine has handed a video over."""
    eventually(lambda: video_id not in {video.id for video in live.engine.videos}, 20)


def made(live: LiveServer, secret: str = ALICE) -> str:
    """A job that has ended and that the store has."""
    answer = post(live, "/v1/videos", secret, **JOB)
    assert answer.status_code == 200, answer.text
    in_store(live, answer.json()["id"])
    return str(answer.json()["id"])


def test_a_key_with_as_many_stored_bytes_as_it_may_have_gets_room_by_deleting(tmp_path: Path, keys: Path) -> None:
    behaviour = Behaviour(payload_bytes=PAYLOAD_BYTES)
    with serving(behaviour, data=str(tmp_path / "data"), keys=keys) as live:
        again = {**bearer(ALICE), "Idempotency-Key": "first"}
        first = httpx.post(f"{live.url}/v1/videos", json=JOB, headers=again).json()["id"]
        in_store(live, first)
        taken = told(live, first)["bytes"]
        assert taken >= LIMIT
        address = f"/v1/videos/{first}"
        for refused in (
            post(live, "/v1/videos", **JOB),
            post(live, f"{address}/remix", prompt="y"),
            post(live, f"{address}/extend", seconds=2),
        ):
            assert refused.status_code == 403 and "retry-after" not in refused.headers
            assert refused.json()["error"] == {
                "code": "storage_limit",
                "message": f"this key's stored videos take {taken} bytes, and may take {LIMIT}; delete some, or wait "
                "until they expire",
                "param": None,
                "type": "permission_error",
            }
        assert httpx.post(f"{live.url}/v1/videos", json=JOB, headers=again).json()["id"] == first
        assert post(live, "/v1/generate", **JOB).status_code == 200, "a stream is not stored"
        made(live, BOB)
        assert httpx.delete(live.url + address, headers=bearer(ALICE)).status_code == 200
        made(live)


def test_what_is_made_of_a_running_video_counts(tmp_path: Path, keys: Path) -> None:
    behaviour = Behaviour(block_s=0.01, payload_bytes=PAYLOAD_BYTES)
    with serving(behaviour, data=str(tmp_path / "data"), keys=keys) as live:
        running = post(live, "/v1/videos", prompt="x", seconds=None).json()["id"]
        eventually(lambda: told(live, running)["bytes"] >= LIMIT)
        assert post(live, "/v1/videos", **JOB).json()["error"]["code"] == "storage_limit"
        httpx.delete(f"{live.url}/v1/videos/{running}", headers=bearer(ALICE))
        assert post(live, "/v1/videos", **JOB).status_code == 200


def test_what_was_made_before_another_start_counts(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.videos.store.store.SHOWN_BYTES", PAYLOAD_BYTES)
    with serving(Behaviour(block_s=0.01, payload_bytes=PAYLOAD_BYTES), data=str(tmp_path / "data"), keys=keys) as live:
        running = post(live, "/v1/videos", prompt="x", seconds=None).json()["id"]
        eventually(lambda: told(live, running)["blocks_done"] > 5)
        before_bytes = told(live, running)["bytes"]
    with serving(Behaviour(stays_starting=True), data=str(tmp_path / "data"), keys=keys) as live:
        assert told(live, running)["bytes"] >= before_bytes >= LIMIT
        assert post(live, "/v1/videos", **JOB).json()["error"]["code"] == "storage_limit"


def test_where_nothing_is_stored_nothing_is_counted(keys: Path) -> None:
    with serving(Behaviour(payload_bytes=PAYLOAD_BYTES), keys=keys) as live:
        for _ in range(2):
            video_id = post(live, "/v1/videos", **JOB).json()["id"]
            eventually(lambda video_id=video_id: told(live, video_id)["status"] == "completed")
            assert told(live, video_id)["bytes"] >= LIMIT


def test_expired_videos_and_those_of_others_are_not_counted() -> None:
    database = create_engine("sqlite://", poolclass=StaticPool)
    migrate(database)
    rows = Rows(database)
    for name, owner, ended_at in (("a", "x", 5.0), ("b", "x", 7.0), ("c", "y", 7.0), ("d", "x", None), ("e", "x", 8.0)):
        row = VideoRow(id=name, owner=owner, model="m", created_at=1.0, request="{}", ended_at=ended_at, num_bytes=10)
        rows.add(row)
    assert rows.stored_bytes("x", ended_after=0.0, without=()) == 30
    assert rows.stored_bytes("x", ended_after=5.0, without=()) == 20
    assert rows.stored_bytes("x", ended_after=5.0, without={"e", "d"}) == 10
    assert rows.stored_bytes("z", ended_after=0.0, without=()) == 0
    database.dispose()
