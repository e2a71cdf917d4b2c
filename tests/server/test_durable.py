"""Accepted videos outlive ``kill -9`` of every process: real servers, the small model, SQLite and a folder."""

from pathlib import Path

import pytest

from tests.server.durable_server import REAL, durable

JOBS = [{"prompt": f"a red ball {seed}", "seconds": 5, "size": "96x96", "seed": seed} for seed in range(3)]


@pytest.mark.slow
@pytest.mark.in_time
def test_three_jobs_outlive_the_end_of_all_processes_with_the_same_bytes(tmp_path: Path) -> None:
    with durable(*REAL, "--data", tmp_path / "calm") as server:
        server.wait_ready()
        ids = [server.create(**job) for job in JOBS]
        for video_id in ids:
            assert server.wait_ended(video_id)["status"] == "completed"
        wanted = [server.content(video_id) for video_id in ids]
    data = tmp_path / "data"
    with durable(*REAL, "--data", data) as server:
        server.wait_ready()
        ids = [server.create(**job) for job in JOBS]
        server.until(lambda: any(server.video(video_id)["blocks_done"] >= 2 for video_id in ids))
        told = [server.video(video_id)["blocks_done"] for video_id in ids]
        server.kill()
    with durable(*REAL, "--data", data) as server:
        for video_id, blocks_done in zip(ids, told, strict=True):  # while the model loads
            assert server.video(video_id)["blocks_done"] >= blocks_done
        server.wait_ready()
        ended = [server.wait_ended(video_id) for video_id in ids]
        assert [video["status"] for video in ended] == ["completed"] * 3
        assert [server.content(video_id) for video_id in ids] == wanted
        assert all(past["exact"] for video in ended for past in video["recoveries"])
