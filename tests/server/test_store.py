"""Durable videos after another start: told of, listed, read, made again, deleted; and what is kept for how long."""

import errno
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from engine import EngineOptions, PromptAt, VideoRequest
from engine.law.schedule import latent_frames_in_block
from engine.request import TensorBytes
from server.settings import SettingError, Settings, read_settings
from server.videos.store.folders import Appender, LocalFolder
from server.videos.store.journal import contents_of
from server.videos.store.opening import open_store
from server.videos.store.rows import Rows, VideoRow
from tests.instant import MANIFEST, Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.keyed_server import ALICE, BOB, bearer, line
from tests.server.live_server import LiveServer, eventually, serving
from tests.server.test_main import ENVIRONMENT, ROOT

pytestmark = pytest.mark.in_turn


def create(live: LiveServer, headers: dict[str, str] | None = None, **fields: object) -> str:
    body = {"prompt": "x", "size": "416x240", "seconds": 3, **fields}
    answer = httpx.post(f"{live.url}/v1/videos", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def told(live: LiveServer, video_id: str, secret: str = "") -> dict[str, Any]:
    return dict(httpx.get(f"{live.url}/v1/videos/{video_id}", headers=bearer(secret)).json())


def ended(live: LiveServer, video_id: str, secret: str = "") -> dict[str, Any]:
    eventually(lambda: told(live, video_id, secret)["status"] not in {"queued", "in_progress"}, 20)
    return told(live, video_id, secret)


def made(live: LiveServer, **fields: object) -> str:
    """An ended video."""
    video_id = create(live, **fields)
    assert ended(live, video_id)["status"] == "completed"
    return video_id


def in_store(live: LiveServer, video_id: str) -> None:
    """Wait until the engine has handed a video over."""
    eventually(lambda: video_id not in {video.id for video in live.engine.videos})


READS = (
    "",
    "/content",
    "/content?variant=thumbnail",
    "/content?variant=spritesheet",
    "/stream?from=1",
    "/index.m3u8",
    "/init.mp4",
    "/blocks/2.m4s",
)


def read_all(live: LiveServer, video_id: str) -> dict[str, tuple[int, bytes]]:
    answers = {path: httpx.get(f"{live.url}/v1/videos/{video_id}{path}") for path in READS}
    return {path: (answer.status_code, answer.content) for path, answer in answers.items()}


@pytest.mark.slow
def test_an_ended_video_is_read_the_same_before_and_after_another_start(tmp_path: Path) -> None:
    behaviour = Behaviour(media=PaintedMedia)
    with serving(behaviour, data=str(tmp_path)) as live:
        video_id = made(live)
        tag = httpx.get(f"{live.url}/v1/videos/{video_id}/content").headers["etag"]
        before = read_all(live, video_id)
        in_store(live, video_id)
        assert read_all(live, video_id) == before
    assert all(status == 200 for status, _ in before.values())
    with serving(Behaviour(stays_starting=True), data=str(tmp_path)) as live:
        assert read_all(live, video_id) == before  # also while the model loads
        content = f"{live.url}/v1/videos/{video_id}/content"
        part = httpx.get(content, headers={"Range": "bytes=100-2999"})
        assert (part.status_code, part.content) == (206, before["/content"][1][100:3000])
        assert httpx.get(content, headers={"If-None-Match": tag}).status_code == 304
        events = httpx.get(f"{live.url}/v1/videos/{video_id}/events").text
        assert "event: ended" in events
        last = events.split("id: ")[-1].split("\n")[0]
        again = httpx.get(f"{live.url}/v1/videos/{video_id}/events", headers={"Last-Event-ID": last})
        assert again.status_code == 204
        assert httpx.get(f"{live.url}/v1/videos/{video_id}/stream?from=99").status_code == 410
        assert httpx.get(f"{live.url}/v1/videos/{video_id}/blocks/99.m4s").status_code == 404


def test_an_ended_video_is_made_again_cancelled_in_vain_and_deleted(tmp_path: Path) -> None:
    with serving(data=str(tmp_path)) as live:
        video_id = made(live, seed=7)
    with serving(data=str(tmp_path)) as live:
        address = f"{live.url}/v1/videos/{video_id}"
        remix = httpx.post(f"{address}/remix", json={"prompt": "y"}).json()
        assert (remix["seed"], remix["remixed_from_video_id"]) == (7, video_id)
        assert httpx.post(f"{address}/cancel").json()["status"] == "completed"
        assert httpx.post(f"{address}/pause").status_code == 409
        further = httpx.post(f"{address}/extend", json={"seconds": 2}).json()
        assert (further["seed"], further["prompt"], further["extended_from_video_id"]) == (7, "x", video_id)
        continues = live.engine.opened[-1].request.continues
        assert continues is not None and continues.first_frame == 48
        assert httpx.post(f"{address}/prompt", json={"prompt": "y"}).status_code == 409
        assert httpx.delete(address).json()["deleted"] is True
        assert httpx.get(address).status_code == 404
        assert not (tmp_path / "videos" / video_id).exists()
        running = create(live, seconds=None)
        eventually(lambda: told(live, running)["blocks_done"] > 1)
        assert httpx.delete(f"{live.url}/v1/videos/{running}").status_code == 200
        assert not (tmp_path / "videos" / running).exists()
    with serving(data=str(tmp_path)) as live:
        assert {httpx.get(f"{live.url}/v1/videos/{one}").status_code for one in (video_id, running)} == {404}


def test_what_a_video_begins_with_is_there_after_another_start(tmp_path: Path) -> None:
    num_frames = latent_frames_in_block(MANIFEST.rollout, 0)
    shape = (num_frames, MANIFEST.transformer.in_dim, 240 // 8, 416 // 8)
    given = TensorBytes(dtype="float32", shape=shape, data=b"latents")
    request = VideoRequest(
        prompts=(PromptAt(at_s=0.0, text="x"),), width_px=416, height_px=240, fps=16, seconds=3, initial=(given,)
    )
    with serving(data=str(tmp_path)) as live:
        assert live.store is not None
        live.begin(live.store.open(live.engine, request)).result(5)  # type: ignore[arg-type]
        video_id = live.engine.opened[-1].id
        assert ended(live, video_id)["status"] == "completed"
    with serving(data=str(tmp_path)) as live:
        again = httpx.post(f"{live.url}/v1/videos/{video_id}/remix", json={"prompt": "y"})
        assert again.status_code == 200 and live.engine.opened[-1].request.initial == (given,)


def test_pages_of_the_list_go_over_both_memory_and_store(tmp_path: Path) -> None:
    with serving(data=str(tmp_path)) as live:
        ids = [made(live) for _ in range(5)]
    with serving(Behaviour(block_s=60), data=str(tmp_path)) as live:
        ids += [create(live) for _ in range(2)]
        for order, wanted in (("asc", ids), ("desc", ids[::-1])):
            found: list[str] = []
            while True:
                query = f"limit=3&order={order}" + (f"&after={found[-1]}" if found else "")
                page = httpx.get(f"{live.url}/v1/videos?{query}").json()
                found += [video["id"] for video in page["data"]]
                if not page["has_more"]:
                    break
            assert found == wanted


def test_a_stopped_server_loses_no_job(tmp_path: Path) -> None:
    with serving(Behaviour(block_s=0.05), data=str(tmp_path), engine=EngineOptions(max_videos=1)) as live:
        ids = [create(live, seconds=10) for _ in range(3)]
        eventually(lambda: told(live, ids[0])["blocks_done"] > 1)
        done = told(live, ids[0])["blocks_done"]
    with serving(data=str(tmp_path)) as live:
        assert told(live, ids[0])["blocks_done"] >= done
        assert [ended(live, video_id)["end_reason"] for video_id in ids] == ["completed"] * 3


def test_a_paused_job_stays_paused_after_another_start(tmp_path: Path) -> None:
    with serving(Behaviour(block_s=0.05), data=str(tmp_path)) as live:
        ids = [create(live, seconds=10) for _ in range(2)]
        for video_id in ids:
            eventually(lambda: told(live, ids[0])["blocks_done"] > 1)
            assert httpx.post(f"{live.url}/v1/videos/{video_id}/pause").json()["paused"]
            at_once = contents_of(LocalFolder(tmp_path / "videos").sources(video_id))  # as if all were killed now
            assert at_once.is_paused
        httpx.post(f"{live.url}/v1/videos/{ids[1]}/resume")
    with serving(data=str(tmp_path)) as live:
        assert ended(live, ids[1])["status"] == "completed"
        paused = told(live, ids[0])
        assert (paused["status"] in {"queued", "in_progress"}, paused["paused"]) == (True, True)
    with serving(data=str(tmp_path)) as live:
        assert told(live, ids[0])["paused"] and told(live, ids[0])["blocks_done"] == paused["blocks_done"]
        httpx.post(f"{live.url}/v1/videos/{ids[0]}/resume")
        assert ended(live, ids[0])["status"] == "completed"


def test_the_same_request_gets_the_same_video_after_another_start(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "once"}
    with serving(data=str(tmp_path)) as live:
        video_id = create(live, headers=key)
    with serving(data=str(tmp_path)) as live:
        assert create(live, headers=key) == video_id
        other = httpx.post(f"{live.url}/v1/videos", json={"prompt": "y"}, headers=key)
        assert other.status_code == 409


def test_owners_and_viewer_tokens_hold_after_another_start(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", ALICE) + line("bob", BOB))
    with serving(data=str(tmp_path / "data"), keys=keys) as live:
        video_id = create(live, bearer(ALICE))
        content = ended(live, video_id, ALICE)["urls"]["content"]
    with serving(data=str(tmp_path / "data"), keys=keys) as live:
        assert httpx.get(f"{live.url}{content}").status_code == 200
        assert told(live, video_id, ALICE)["id"] == video_id
        assert told(live, video_id, BOB)["error"]["code"] == "not_found"
        assert httpx.get(f"{live.url}/v1/videos", headers=bearer(BOB)).json()["data"] == []
        assert len(httpx.get(f"{live.url}/v1/videos", headers=bearer(ALICE)).json()["data"]) == 1


def test_what_is_kept_for_how_long(tmp_path: Path) -> None:
    with serving(data=str(tmp_path)) as live:
        ids = [made(live) for _ in range(3)]
        in_store(live, ids[-1])
        assert [told(live, one)["expires_at"] - told(live, one)["completed_at"] for one in ids] == [86400] * 3
        size = told(live, ids[0])["bytes"]
    with serving(data=str(tmp_path), keep_bytes=2 * size) as live:
        eventually(lambda: told(live, ids[0]).get("error") is not None)
        assert [told(live, one).get("id") for one in ids[1:]] == ids[1:]
        eventually(lambda: not (tmp_path / "videos" / ids[0]).exists())
    with serving(data=str(tmp_path), keep_hours=0.0) as live:
        assert httpx.get(f"{live.url}/v1/videos").json()["data"] == []
        eventually(lambda: list((tmp_path / "videos").iterdir()) == [])


class SmallFolder(LocalFolder):
    """A disk that is full after so many bytes."""

    def __init__(self, path: Path, room_bytes: int) -> None:
        super().__init__(path)
        self.room_bytes = room_bytes

    def begin(self, video_id: str) -> Appender:
        return _Appender(self, super().begin(video_id))


class _Appender:
    def __init__(self, folder: SmallFolder, inner: Appender) -> None:
        self._folder, self._inner = folder, inner
        self.sync, self.close = inner.sync, inner.close

    def append(self, data: bytes) -> None:
        if len(data) > self._folder.room_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._folder.room_bytes -= len(data)
        self._inner.append(data)


def test_a_full_disk_fails_the_job_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SmallFolder(tmp_path / "small", 30_000)
    monkeypatch.setattr("server.videos.store.opening.LocalFolder", lambda path: small)
    with serving(Behaviour(block_s=0.01, payload_bytes=1000), data=str(tmp_path / "data")) as live:
        with httpx.stream("POST", f"{live.url}/v1/generate", json={"prompt": "x"}) as stream:
            chunks = stream.iter_raw()
            video_id = create(live, seconds=600)
            failed = ended(live, video_id)
            assert (failed["status"], failed["error"]["code"]) == ("failed", "storage_full")
            assert 0 < failed["blocks_done"] < 30
            assert httpx.get(f"{live.url}/readyz").status_code == 200
            for _ in itertools.islice(chunks, 5):
                pass
        small.room_bytes = 10**9
        made(live)
        in_store(live, video_id)
        assert told(live, video_id)["error"]["code"] == "storage_full"


@pytest.fixture
def torn(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder whose job was cut off in the middle of a block."""
    with serving(Behaviour(block_s=0.02), data=str(tmp_path)) as live:
        video_id = create(live, seconds=20)
        eventually(lambda: told(live, video_id)["blocks_done"] > 3)
    yield tmp_path, video_id


def test_half_a_block_is_cut_off_and_the_rest_can_be_watched(torn: tuple[Path, str]) -> None:
    data, video_id = torn
    file = data / "videos" / video_id / "000000"
    file.write_bytes(file.read_bytes()[:-10])
    with serving(Behaviour(stays_starting=True), data=str(data)) as live:
        done = told(live, video_id)["blocks_done"]
        assert done >= 3
        blocks = [httpx.get(f"{live.url}/v1/videos/{video_id}/blocks/{n}.m4s") for n in range(done)]
        assert {block.status_code for block in blocks} == {200}
        live.do(live.engine.workers.serve)
        assert ended(live, video_id)["status"] == "completed"
        in_store(live, video_id)
        frames = told(live, video_id)["seconds_done"] * 16
        assert frames == 320


def test_a_database_that_does_not_answer_refuses_jobs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(rows: Rows, row: VideoRow, *_receipt: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with serving(data=str(tmp_path)) as live:
        monkeypatch.setattr(Rows, "add", failing)
        answer = httpx.post(f"{live.url}/v1/videos", json={"prompt": "x"}, headers={"Idempotency-Key": "1"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        assert httpx.get(f"{live.url}/readyz").status_code == 200
        assert httpx.get(f"{live.url}/v1/videos").json()["data"] == []
        body = {"prompt": "x", "seconds": 2}
        assert httpx.post(f"{live.url}/v1/generate", json=body).status_code == 200
        monkeypatch.undo()
        made(live)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--data", "/dev/null/x"), "--data: /dev/null/x cannot be written (Not a directory); give another folder"),
        (("--data", "memory", "--store", "/tmp/x"), "--data is memory; with it give both --database and --store"),
        (("--database", "nonsense", "--data", "{}"), "--database: this is no URL of SQLAlchemy, such as postgresql"),
        (("--database", "oracle://x/y", "--data", "{}"), "--database: oracle://x/y is of no kind that is known"),
        (("--store", "nosuch://x", "--data", "{}"), "--store: nosuch://x cannot be used: Protocol not known"),
        (
            (
                "--advertise",
                "here",
            ),
            "--advertise is 'here'; expected an address like http://10.0.0.7:8000",
        ),
    ],
)
def test_what_is_wrong_with_the_store_is_told_in_a_sentence(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    arguments = [flag.format(tmp_path) for flag in flags]
    with pytest.raises(SettingError) as refused:
        open_store(read_settings(arguments, {}))
    assert str(refused.value).startswith(said)


def test_an_object_store_without_its_package_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingError, match=r"^--store: s3://bucket/x needs another package: .*hiar-server\[s3\]"):
        open_store(read_settings(["--store", "s3://bucket/x", "--data", str(tmp_path)], {}))


def test_a_database_of_a_later_server_is_refused(tmp_path: Path) -> None:
    with serving(data=str(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "videos.sqlite") as database:
        database.execute("INSERT INTO hiar_versions VALUES (99)")
    database.close()
    with pytest.raises(SettingError, match="version 99, this one knows 1"):
        open_store(Settings(data=str(tmp_path)))


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.server.serve_instant", "0.01", "--port", "0", "--data", str(tmp_path)]
    with serving(data=str(tmp_path)):
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"hiar-server: --data: another hiar-server uses {tmp_path}; give this one a folder of its own, or "
        "--data memory\n"
    )


def test_nothing_is_kept_in_memory() -> None:
    assert open_store(Settings(data="memory")) is None
