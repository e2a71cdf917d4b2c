"""The engine with several real worker processes whose passes are sleeps: pacing, admission, refusals at start."""

import asyncio
import os
import signal
import tempfile
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from engine import (
    EndReason,
    Engine,
    EngineConfig,
    EngineState,
    EngineUnavailable,
    Made,
    Observer,
    Output,
    Overloaded,
    Pace,
    PromptAt,
    StartError,
    VideoHandle,
    VideoRequest,
    WorkerLost,
    read_manifest,
)
from engine.engine_config import Rehearsal
from engine.fleet import supervisor
from engine.trace import Phase, Rests, Span
from tests.front import making

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

CONFIG = EngineConfig(
    manifest=read_manifest(Path("models/tiny")),
    devices=("cpu",) * 5,
    max_videos=4,
    poison_pages=True,
    rehearsal=Rehearsal(pass_s=0.02),
)
REQUEST = VideoRequest(
    prompts=(PromptAt(at_s=0, text="x"),), width_px=128, height_px=128, fps=16, seconds=6, output=Output.LATENTS
)


def running(config: EngineConfig = CONFIG) -> AbstractAsyncContextManager[Engine]:
    return making.running(config)


async def read(video: VideoHandle) -> int:
    return len([fragment async for fragment in video.read()])


def test_three_videos_keep_their_own_pace_and_none_misses_a_deadline() -> None:
    async def body() -> None:
        async with running() as engine:  # 0.04 s a block: 25 blocks/s
            paces = [replace(REQUEST, seed=fps, fps=fps, seconds=6) for fps in (8, 16, 30)]
            videos = [await engine.open(request) for request in paces]
            hurried = await engine.open(replace(REQUEST, pace=Pace.FAST, seconds=30))
            counts = await asyncio.gather(*map(read, (*videos, hurried)))
            assert counts == [5, 9, 16, 41]
            assert [video.status().num_stalls for video in videos] == [0, 0, 0]

    asyncio.run(body())


def test_more_than_the_chain_can_do_in_time_is_refused_and_disturbs_nobody() -> None:
    async def body() -> None:
        slow = replace(CONFIG, rehearsal=Rehearsal(pass_s=0.1), max_queue=0)  # 0.2 s a block, 0.75 s to play: 27 %
        async with running(slow) as engine:
            videos = [await engine.open(REQUEST) for _ in range(3)]
            with pytest.raises(Overloaded) as refusal:
                await engine.open(REQUEST)
            assert refusal.value.retry_after_s >= 1
            hurried = await engine.open(replace(REQUEST, pace=Pace.FAST))  # has no deadline to miss: one place is free
            await asyncio.gather(*map(read, (*videos, hurried)))
            assert [video.status().num_stalls for video in videos] == [0, 0, 0]

    asyncio.run(body())


def test_two_chains_share_the_videos_and_the_loss_of_one_worker_replaces_all() -> None:
    async def body() -> None:
        async with running(replace(CONFIG, devices=("cpu",) * 6, max_videos=1)) as engine:
            videos = [await engine.open(replace(REQUEST, seconds=None)) for _ in range(2)]
            reading = [asyncio.create_task(read(video)) for video in videos]
            while any(video.kept.stop < 2 for video in videos):
                await asyncio.sleep(0.01)
            assert {video.chain for video in engine._shell.desk.videos} == {0, 1}
            assert engine.fleet.worker_pids[4] is not None
            os.kill(engine.fleet.worker_pids[4], signal.SIGKILL)
            before = [video.kept.stop for video in videos]
            while any(s.kept.stop < had + 8 for s, had in zip(videos, before, strict=True)):
                await asyncio.sleep(0.01)
            assert [len(video.status().recoveries) for video in videos] == [1, 1]
            await asyncio.gather(*(video.stop() for video in videos))
            await asyncio.gather(*reading)
            assert engine.load.pages_used == 0

    asyncio.run(body())


def test_while_workers_are_replaced_new_videos_are_refused_and_waiting_ones_get_their_turn() -> None:
    async def body() -> None:
        async with running(replace(CONFIG, devices=("cpu", "cpu"), max_videos=1)) as engine:
            holding = await engine.open(replace(REQUEST, seconds=None))
            waiting = await engine.open(replace(REQUEST, pace=Pace.FAST))
            async for _ in holding.read():
                break
            assert engine.fleet.worker_pids[0] is not None
            os.kill(engine.fleet.worker_pids[0], signal.SIGKILL)
            while engine.state == EngineState.READY:
                await asyncio.sleep(0.01)
            with pytest.raises(EngineUnavailable):
                await engine.open(REQUEST)
            await holding.stop()  # while it waits for workers
            assert holding.end_reason == EndReason.CANCELLED
            assert await read(waiting) == 9
            assert len(engine.fleet.recovery_times_s) == 1

    asyncio.run(body())


def test_a_video_waits_no_longer_than_its_grace_for_new_workers() -> None:
    async def body() -> None:
        async with running(replace(CONFIG, devices=("cpu", "cpu"), recovery_grace_s=0.05)) as engine:
            video = await engine.open(replace(REQUEST, seconds=None))
            async for _ in video.read():
                break
            assert engine.fleet.worker_pids[1] is not None
            os.kill(engine.fleet.worker_pids[1], signal.SIGKILL)
            with pytest.raises(WorkerLost, match=r"0\.05 s"):
                await read(video)

    asyncio.run(body())


def test_after_too_many_losses_the_engine_has_failed_and_its_videos_end_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSES_S", (0.0, 0.0))

    async def body() -> None:
        async with running(replace(CONFIG, devices=("cpu",))) as engine:
            video = await engine.open(replace(REQUEST, seconds=None))
            for _ in range(3):
                await engine.wait_ready()
                assert engine.fleet.worker_pids[0] is not None
                os.kill(engine.fleet.worker_pids[0], signal.SIGKILL)
                while engine.state == EngineState.READY:
                    await asyncio.sleep(0.01)
            assert engine.state == EngineState.FAILED
            with pytest.raises(StartError, match=r"3 losses in 600 s, giving up"):
                await engine.wait_ready()
            with pytest.raises(WorkerLost):
                await read(video)
            with pytest.raises(EngineUnavailable):
                await engine.open(REQUEST)

    asyncio.run(body())


def test_every_pass_wait_and_transfer_leaves_a_span() -> None:
    told: list[Span] = []

    class Listener(Observer):
        def worker_worked(self, rank: int, spans: tuple[Span, ...], rests: Rests) -> None:
            told.extend(spans)

    async def body() -> None:
        async with making.running(CONFIG, Listener()) as engine:
            video = await engine.open(replace(REQUEST, pace=Pace.FAST))
            assert await read(video) == 9
            blocks = range(9)
            await read(await engine.open(replace(REQUEST, pace=Pace.FAST)))  # late spans come with the next work
            spans = [span for span in told if span.video == video.id]
            for stage in range(4):
                assert sorted(s.block for s in spans if s.phase == Phase.DENOISE and s.stage == stage) == [*blocks]
                assert sorted(s.block for s in spans if s.phase == Phase.CACHE and s.stage == stage) == [*blocks][:-1]
            for phase in (Phase.SEND, Phase.RECEIVE):
                assert sorted(s.block for s in spans if s.phase == phase) == sorted([*blocks] * 4)
            check_the_diagonal(video, spans)

    asyncio.run(body())


def check_the_diagonal(video: VideoHandle, spans: list[Span]) -> None:
    """What is told with blocks are the passes of the workers, and neighbouring blocks are under way at once."""
    happenings = [happened[1] for after in range(20) if (happened := video.happened(after)) is not None]
    steps = {one.block: one.steps for one in happenings if isinstance(one, Made)}
    measured = {(s.block, s.stage): s for s in spans if s.phase == Phase.DENOISE}
    whole = [block for block in range(8) if len(steps[block]) == len(steps[block + 1]) == 4]
    assert len(whole) >= 4, "hardly a step was known when its block was told of"
    first_s = measured[0, 0].began_s - steps[0][0].began_s
    for block in whole:
        for step in steps[block]:
            span = measured[block, step.number]
            assert span.rank == step.rank and span.began_s - first_s == pytest.approx(step.began_s, abs=1e-6)
        begins, ends = [s.began_s for s in steps[block]], [s.began_s + s.took_s for s in steps[block]]
        assert all(ended < began for ended, began in zip(ends, begins[1:], strict=False)), "steps run one by one"
        assert steps[block + 1][0].began_s < begins[3], "the next block begins before this one's last step"


def start_error(config: EngineConfig) -> str:
    """What the engine says when it cannot start, after which no process is left."""

    async def body() -> str:
        engine = Engine(config)
        await engine.start()
        try:
            with pytest.raises(StartError) as failure:
                await engine.wait_ready()
            assert engine.state == EngineState.FAILED
            return failure.value.message
        finally:
            await engine.stop()

    message = asyncio.run(body())
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "hiar-worker"]
    assert "\n" not in message
    return message


def test_a_device_that_is_not_there_is_named() -> None:
    assert "cuda:3" in start_error(replace(CONFIG, devices=("cuda:30", "cuda:31")))


def test_pages_that_do_not_fit_are_refused_before_they_are_taken() -> None:
    message = start_error(replace(CONFIG, max_videos=10**8))
    assert "GB" in message and "--max-videos" in message


def test_a_restart_that_will_outlast_the_patience_of_videos_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(config: EngineConfig) -> None:
        engine = Engine(config)
        await engine.start()
        await engine.wait_ready()
        await engine.stop()

    asyncio.run(body(replace(CONFIG, recovery_grace_s=0.01)))
    assert "longer than videos wait (0.01 s)" in caplog.text and "raise --recovery-grace" in caplog.text
    caplog.clear()
    asyncio.run(body(CONFIG))
    assert "--recovery-grace" not in caplog.text


def test_without_a_temporary_folder_the_start_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(StartError, match=r"^no temporary folder can be made: No such file or directory; TMPDIR"):
        asyncio.run(Engine(CONFIG).start())


def test_a_start_that_takes_too_long_ends_in_one_sentence() -> None:
    assert "0.01 s" in start_error(replace(CONFIG, start_timeout_s=0.01))
