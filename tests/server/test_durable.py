"""Accepted videos outlive ``kill -9`` of every process: real servers, the small model, SQLite and a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.durable_server import REAL, DurableServer, durable

JOBS = [{"prompt": f"a red ball {seed}", "seconds": 5, "size": "96x96", "seed": seed} for seed in range(3)]
ALL_AT_ONCE = (*REAL, "--max-videos", len(JOBS))


@contextlib.contextmanager
def restarted_amid_jobs(*flags: object) -> Iterator[tuple[DurableServer, list[bytes]]]:
    """A server whose processes were all killed while each of ``JOBS`` was made; the bytes that it made of them then."""
    with durable(*ALL_AT_ONCE, *flags) as server:
        server.wait_ready()
        ids = [server.create(**job) for job in JOBS]
        server.until(lambda: all(server.video(video_id)["blocks_done"] >= 1 for video_id in ids))
        told = [server.video(video_id) for video_id in ids]
        server.kill()
    assert [video["status"] for video in told] == ["in_progress"] * len(JOBS)
    with durable(*ALL_AT_ONCE, *flags) as server:
        for video in told:  # while the model loads
            assert server.video(video["id"])["blocks_done"] >= video["blocks_done"]
        server.wait_ready()
        ended = [server.wait_ended(video_id) for video_id in ids]
        assert [video["status"] for video in ended] == ["completed"] * len(JOBS)
        assert [[past["exact"] for past in video["recoveries"]] for video in ended] == [[True]] * len(JOBS)
        yield server, [server.content(video_id) for video_id in ids]


@pytest.mark.slow
@pytest.mark.in_turn
def test_three_jobs_outlive_the_end_of_all_processes_with_the_same_bytes(tmp_path: Path) -> None:
    with durable(*ALL_AT_ONCE, "--data", tmp_path / "calm") as server:
        server.wait_ready()
        wanted = server.make(JOBS)
    with restarted_amid_jobs("--data", tmp_path / "data") as (_, made):
        assert made == wanted
