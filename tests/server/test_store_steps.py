"""One job, whenever processes end: its receipt comes with it, and one server takes it over."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from server.videos.store.leases import Leases
from server.videos.store.rows import Rows, VideoRow
from server.videos.store.schema import migrate
from tests.instant import Behaviour
from tests.server.live_server import serving
from tests.server.test_main import ENVIRONMENT, ROOT
from tests.server.test_store import create


def test_a_job_and_its_receipt_are_stored_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, add = {"Idempotency-Key": "once"}, Rows.add

    def copied(rows: Rows, row: VideoRow, *receipt: Any) -> None:
        add(rows, row, *receipt)
        shutil.copytree(tmp_path / "one", tmp_path / "two")  # what is left if all are killed now

    with serving(data=str(tmp_path / "one")) as live:
        monkeypatch.setattr(Rows, "add", copied)
        video_id = create(live, headers=key)
        monkeypatch.undo()
    with serving(data=str(tmp_path / "two")) as live:
        assert create(live, headers=key) == video_id
        assert len(httpx.get(f"{live.url}/v1/videos").json()["data"]) == 1


def test_two_servers_at_the_same_moment_make_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, find = {"Idempotency-Key": "once"}, Rows.receipt
    with serving(Behaviour(block_s=0.05), data=str(tmp_path)) as live:
        video_id = create(live, headers=key)
        answers = iter([lambda *_: None, find])  # the other server's is not there yet, then it is
        monkeypatch.setattr(Rows, "receipt", lambda *asked: next(answers)(*asked))  # noqa: PLW0108 - each call takes the next
        assert create(live, headers=key) == video_id
        assert [video["id"] for video in httpx.get(f"{live.url}/v1/videos").json()["data"]] == [video_id]


HOLDING = """
import sys
from pathlib import Path
from sqlalchemy import create_engine
from server.videos.store.leases import Leases
leases = Leases(create_engine(sys.argv[1]), is_alone=False, seen_in=Path(sys.argv[2]))
leases.renew()
print(leases.holder, flush=True)
sys.stdin.read()
"""


def test_a_lease_ends_with_its_process_where_that_is_seen(tmp_path: Path) -> None:
    url, seen_in = f"sqlite:///{tmp_path / 'db'}", tmp_path / "servers"
    database = create_engine(url)
    migrate(database)
    leases, elsewhere = (Leases(database, is_alone=False, seen_in=where) for where in (seen_in, tmp_path / "others"))
    command = [sys.executable, "-c", HOLDING, url, str(seen_in)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT, env=ENVIRONMENT) as other:
        assert other.stdout is not None
        holder = other.stdout.readline().strip()
        Rows(database).add(VideoRow(id="a", owner="", model="m", created_at=1.0, request="{}", holder=holder))
        assert leases.take() == []
        other.kill()
        other.wait()
        assert elsewhere.take() == [], "another machine waits until the lease is over"
        assert [row.id for row in leases.take()] == ["a"] and leases.take() == []
        assert os.listdir(seen_in) == [leases.holder]
    leases.end(), elsewhere.end()
    assert os.listdir(seen_in) == []
    database.dispose()
