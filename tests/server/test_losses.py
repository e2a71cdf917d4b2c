"""Losing workers while clients read: real processes, real sockets, real encoder; passes are sleeps.

Every picture shows its number, so a video tells what was lost or made twice (spec, operations 1.6).
"""

import os
import signal
import socket
import sys
import time

import httpx
import psutil
import pytest

from tests.server.rehearsed_server import FPS, Viewer, eventually, rehearsed_server, wait_for_progress

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

PASS_S = 0.02
NUM_WORKERS = 3


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_readers_of_two_videos_get_every_block_once_while_every_worker_is_lost_in_turn(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 18
    with rehearsed_server(PASS_S, "--stage-timeout", "1", workers=NUM_WORKERS) as server:
        viewers = [Viewer(server, seed, seconds) for seed in (1, 2)]
        eventually(lambda: viewers[0].video, 30)
        viewers.append(Viewer(server, path=f"/v1/videos/{viewers[0].video}/stream"))
        for rank in range(NUM_WORKERS):
            wait_for_progress(viewers)
            restarts = server.load()["restarts"]
            server.signal_worker(rank, signal.Signals[name])
            seen_s = eventually(lambda: not server.is_ready(), 5)
            again_s = eventually(server.is_ready, 30)
            with capsys.disabled():
                sys.stdout.write(f"\n{name} worker {rank}: seen after {seen_s:.2f} s, serving {again_s:.2f} s later\n")
            assert server.load()["restarts"] == restarts + 1
            if name == "SIGKILL":
                assert seen_s < 1
        for viewer in viewers:
            viewer.finish()
            assert viewer.end is not None and viewer.end["reason"] == "completed"
            assert viewer.numbers == list(range(seconds * FPS))
            assert viewer.steps_s == {1 / FPS}
        assert viewers[0].blocks == viewers[2].blocks, "two readers of one video"
        assert server.load()["pages_used"] == 0


def test_old_videos_are_restored_from_saved_latents_without_a_gap() -> None:
    seconds = 140
    flags = "--recovery-grace", "24", "--max-videos", "10"  # a video of more than 120 blocks is too old to make again
    with rehearsed_server(PASS_S / 4, *flags, workers=NUM_WORKERS) as server:
        viewer = Viewer(server, 1, seconds)
        eventually(lambda: viewer.video and _blocks_done(server.url, viewer.video) > 130, 30)
        assert viewer.video is not None
        server.signal_worker(1, signal.SIGKILL)
        video = f"{server.url}/v1/videos/{viewer.video}"
        eventually(lambda: httpx.get(video).json()["recoveries"], 20)
        assert [past["exact"] for past in httpx.get(video).json()["recoveries"]] == [False]
        assert server.load()["restarts"] == 1
        viewer.finish()
        assert viewer.numbers == list(range(seconds * FPS)) and viewer.steps_s == {1 / FPS}


def _blocks_done(url: str, video: str) -> int:
    return int(httpx.get(f"{url}/v1/videos/{video}").json()["blocks_done"])


def test_a_stack_of_the_hung_worker_is_in_the_log() -> None:
    with rehearsed_server(PASS_S, "--stage-timeout", "1", faults=("hang:1:2:7",)) as server:
        viewer = Viewer(server, 7, 2)
        eventually(lambda: "before_pass" in server.log.read_text(), 30)
        viewer.thread.join(0)


def test_out_of_memory_and_nan_end_one_video_typed_and_leave_the_others() -> None:
    faults = ("oom:2:3:7", "nan:1:4:8")
    with rehearsed_server(PASS_S, "--max-videos", "3", faults=faults) as server:
        good, big, broken = (Viewer(server, seed, 8) for seed in (1, 7, 8))
        for viewer in (good, big, broken):
            viewer.finish()
        assert good.end is not None and good.end["reason"] == "completed"
        assert good.numbers == list(range(8 * FPS))
        assert big.end is not None and (big.end["type"], big.end["code"]) == ("error", "engine_oom")
        assert broken.end is not None and (broken.end["type"], broken.end["code"]) == ("error", "corrupt_latents")
        for viewer, bad_block in ((big, 3), (broken, 4)):
            assert viewer.numbers == list(range(9 + 12 * (viewer.num_blocks - 1)))
            assert 0 < viewer.num_blocks <= bad_block
        eventually(lambda: server.load()["pages_used"] == 0, 2)
        assert server.load()["restarts"] == 0


def test_a_video_that_ends_its_workers_again_and_again_ends_typed_and_the_other_goes_on() -> None:
    with rehearsed_server(PASS_S, faults=("exit:0:2:7",), workers=2) as server:
        good, deadly = Viewer(server, 1, 6), Viewer(server, 7, 6)
        deadly.finish()
        good.finish()
        assert deadly.end is not None and deadly.end["code"] == "worker_lost"
        assert good.end is not None and good.end["reason"] == "completed"
        assert good.numbers == list(range(6 * FPS))


def test_nothing_to_do_is_no_fault() -> None:
    with rehearsed_server(PASS_S, "--stage-timeout", "0.5", "--lead-target", "1") as server:
        viewer = Viewer(server, 1, 4, pace="realtime")  # made in a second, then the workers rest while it plays
        viewer.finish()
        time.sleep(1.5)
        assert viewer.numbers == list(range(4 * FPS))
        assert server.load()["restarts"] == 0 and server.is_ready()


def test_forty_videos_left_by_their_viewers_give_their_pages_back() -> None:
    slowest_s = 0.0
    with rehearsed_server(0.002) as server, httpx.Client() as client:
        body = {"prompt": "x", "size": "96x96"}
        for index in range(40):
            with client.stream("POST", f"{server.url}/v1/generate", json=body) as answer:
                assert answer.status_code == 200
                chunks = answer.iter_raw()
                next(chunks)
                assert server.load()["pages_used"] > 0
                if index % 2:
                    video = answer.headers["X-Video-Id"]
                    assert httpx.delete(f"{server.url}/v1/videos/{video}").status_code == 200
            slowest_s = max(slowest_s, eventually(lambda: server.load()["pages_used"] == 0, 2))
        assert server.load()["running"] == 0
    assert slowest_s < 2


def test_killing_the_server_leaves_no_process_no_shared_memory_and_no_port() -> None:
    with rehearsed_server(PASS_S) as server:
        Viewer(server, 1, None)
        children = server.process.children(recursive=True)
        assert len(children) >= NUM_WORKERS
        os.kill(server.process.pid, signal.SIGKILL)
        eventually(lambda: not any(_runs(child) for child in children), 3)
        pids = [server.process.pid, *(child.pid for child in children)]
        assert not [name for name in os.listdir("/dev/shm") if any(f"_{pid}_" in name for pid in pids)]
        url = httpx.URL(server.url)
        assert url.port is not None
        socket.create_server((url.host, url.port)).close()


def test_a_signal_to_the_whole_process_group_still_drains() -> None:
    with rehearsed_server(PASS_S) as server:
        viewer = Viewer(server, 1, None)
        eventually(lambda: viewer.data, 20)
        for process in (*server.process.children(recursive=True), server.process):
            process.send_signal(signal.SIGTERM)
        viewer.finish(20)
        assert viewer.end is not None and viewer.end["reason"] == "drain"
        assert server.process.wait(20) == 0


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
