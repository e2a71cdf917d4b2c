"""Accepted videos outlive ``kill -9`` of every process: real servers, the small model, SQLite and a folder."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.server.durable_server import REAL, DurableServer, durable

NUM_JOBS = 3
JOBS = [{"prompt": f"a red ball {seed}", "seconds": 5, "size": "96x96", "seed": seed} for seed in range(NUM_JOBS)]


@contextlib.contextmanager
def restarted_amid(
    jobs: Sequence[Mapping[str, object]], *program: object
) -> Iterator[tuple[DurableServer, list[bytes]]]:
    """A server whose processes were all killed while each of the jobs was made; the bytes that it made of them then."""
    with durable(*program, "--max-videos", NUM_JOBS) as server:
        server.wait_ready()
        ids = [server.create(**job) for job in jobs]
        server.until(lambda: all(server.video(video_id)["blocks_done"] >= 1 for video_id in ids))
        told = [server.video(video_id) for video_id in ids]
        server.kill()
    assert [video["status"] for video in told] == ["in_progress"] * NUM_JOBS
    with durable(*program, "--max-videos", NUM_JOBS) as server:
        for video in told:  # while the model loads
            assert server.video(video["id"])["blocks_done"] >= video["blocks_done"]
        server.wait_ready()
        ended = [server.wait_ended(video_id) for video_id in ids]
        assert [video["status"] for video in ended] == ["completed"] * NUM_JOBS
        assert [[past["exact"] for past in video["recoveries"]] for video in ended] == [[True]] * NUM_JOBS
        yield server, [server.content(video_id) for video_id in ids]


@pytest.mark.slow
@pytest.mark.in_turn
def test_three_jobs_outlive_the_end_of_all_processes_with_the_same_bytes(tmp_path: Path) -> None:
    with restarted_amid(JOBS, *REAL, "--data", tmp_path) as (server, made):
        assert made == server.make(JOBS) and len(set(made)) == NUM_JOBS
