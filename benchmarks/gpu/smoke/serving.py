"""The steps with an engine that serves: its start, two videos, its memory, a worker that is killed, and its end."""

import asyncio
import signal
from collections.abc import Coroutine, Mapping

from torch import Tensor

from benchmarks.gpu.record import Table
from benchmarks.gpu.smoke.check import Check, not_run
from benchmarks.gpu.smoke.memory import check_memory
from benchmarks.gpu.smoke.model import LOST_VIDEO_S, Subject
from benchmarks.gpu.smoke.oracle import tensor_of
from benchmarks.gpu.smoke.video import Video
from benchmarks.precision.operations import relative_error
from benchmarks.recovery import Loss, Viewer, lose
from engine import EndReason, Engine, EngineFacts, Observer, Output, StartError, StartTimes, VideoHandle

POLL_S = 0.02
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-1}
"""By type: how far a video that is made again may be from itself. In bfloat16, forwards that fuse other passes round
otherwise, which alone makes a few hundredths at true widths; another noise would make more than 1."""
CLOSE_S = 10.0
"""What a video gets to end; one whose workers stand still never does."""


class StartWatch(Observer):
    """Keeps how long the parts of each start took."""

    def __init__(self) -> None:
        self.times: list[StartTimes] = []

    def group_serves(self, facts: EngineFacts, times: StartTimes) -> None:
        """A worker group is ready."""
        self.times.append(times)


class Serving:
    """One engine, from its start to its end. Its steps run on one event loop, in order."""

    def __init__(self, subject: Subject) -> None:
        """Start nothing yet."""
        self.subject = subject
        self.latents: Video | None = None
        """The video of latents, once it is made."""
        self._watch = StartWatch()
        self._engine = Engine(subject.config, observer=self._watch)

    @property
    def dtype_name(self) -> str:
        """Type of latents."""
        return self._facts.dtypes.activations

    @property
    def text_on_host(self) -> bool:
        """Whether prompts are embedded in the host's memory, beside GPUs."""
        return any(part.text_on_host for part in self._facts.plan.placements)

    @property
    def _facts(self) -> EngineFacts:
        facts = self._engine.fleet.facts
        assert facts is not None, "the engine serves"
        return facts

    async def start(self) -> Check:
        """Until the engine serves. Raises ``StartError``, with what was last heard of the workers."""
        began_s = asyncio.get_running_loop().time()
        await self._engine.start()
        try:
            await self._engine.wait_ready()
        except StartError as error:
            progress = self._engine.fleet.start_progress
            if progress is None:
                raise
            raise StartError(f"{error}; last heard: {progress}") from error
        ready_s = asyncio.get_running_loop().time() - began_s
        (times,) = self._watch.times
        facts = self._facts
        phases = (("measuring", times.measure_s), ("loading", times.load_s), ("warming up", times.warm_up_s))
        placed = "; ".join(f"{part.device}: {' '.join(part.names)}" for part in facts.plan.placements)
        return Check(
            name="start",
            result=f"ready after {ready_s:.1f} s; {placed}; {facts.frames_per_s:.1f} frames/s predicted",
            passed=True,
            numbers={
                "ready_s": ready_s,
                "measure_s": times.measure_s,
                "load_s": times.load_s,
                "warm_up_s": times.warm_up_s,
                "predicted_frames_per_s": facts.frames_per_s,
            },
            tables=(Table("The start", ("phase", "s"), phases),),
            notes=(
                f"attention: {facts.attention}; activations {facts.dtypes.activations}",
                *(f"the engine runs without {part}" for part in self.subject.without),
            ),
        )

    async def make_latents(self) -> Check:
        """A video that stops at latents: the rate of the transformer alone, and what the oracle must give."""
        self.latents, is_complete = await self._make(Output.LATENTS)
        blocks = [self.tensor(data) for data in self.latents.blocks]
        is_finite = all(bool(block.isfinite().all()) for block in blocks)
        return Check(
            name="video of latents",
            result=self.latents.sentence + ("" if is_finite else "; holds NaN or infinity"),
            passed=is_complete and is_finite,
            numbers=self.latents.numbers,
        )

    async def make_fragments(self) -> Check:
        """The same video, decoded and encoded, read beside the engine without a socket."""
        name = "video of fragments"
        if not self.subject.makes_pictures:
            return not_run(name, f"the engine runs without {' and without '.join(self.subject.without) or 'a decoder'}")
        video, is_complete = await self._make(Output.FRAGMENTS)
        return Check(name=name, result=video.sentence, passed=is_complete, numbers=video.numbers)

    def memory(self, used_bytes: Mapping[str, int]) -> Check:
        """What each worker was planned to hold and what it holds; ``used_bytes``: on each device, after the videos."""
        return check_memory(self._facts.memory, used_bytes)

    async def lose_a_worker(self, limit_s: float) -> Check:
        """Kill worker 0 in the middle of a video, and compare all of it with the undisturbed video.

        Raises:
            HiarError: the video did not outlive its worker, or no other workers served.
            RuntimeError: the video was over too early.
        """
        times = self._watch.times[-1]
        again_s = times.load_s + times.warm_up_s
        if limit_s < again_s:
            return not_run("recovery", f"{limit_s:.0f} s are left, and new workers would take about {again_s:.0f} s")
        viewer = Viewer(await self._engine.open(self.subject.request(Output.LATENTS, LOST_VIDEO_S)))
        reading = asyncio.create_task(viewer.read())
        try:
            await _blocks(viewer, reading, self.subject.num_blocks // 2)
            loss = await _while_read(reading, lose(self._engine, [viewer], 0, signal.SIGKILL.name.removeprefix("SIG")))
            await _blocks(viewer, reading, self.subject.num_blocks)
        finally:
            await _close(viewer.video)
        await reading
        return self._check_recovery(viewer, loss)

    def _check_recovery(self, viewer: Viewer, loss: Loss) -> Check:
        recoveries, num_blocks = viewer.video.status().recoveries, self.subject.num_blocks
        numbers = {
            "seen_s": loss.seen_s,
            "serving_s": loss.serving_s,
            "first_new_block_s": loss.stream_s,
            "blocks_before": recoveries[0].block if recoveries else 0,
            "blocks": len(viewer.blocks),
        }
        result = (
            f"seen after {loss.seen_s:.2f} s, serving after {loss.serving_s:.1f} s, "
            f"the video goes on after {loss.stream_s:.1f} s"
        )
        goes_on = len(recoveries) == 1 and len(viewer.blocks) >= num_blocks
        if not goes_on or not recoveries[0].exact or self.latents is None:
            way = "approximately: it resembles the undisturbed video" if goes_on else "no"
            return Check(name="recovery", result=f"{result}; restored {way}", passed=goes_on, numbers=numbers)
        pairs = zip(viewer.blocks[:num_blocks], self.latents.blocks, strict=True)
        errors = [relative_error(self.tensor(data), self.tensor(expected)) for data, expected in pairs]
        tolerance = TOLERANCES[self.dtype_name]
        return Check(
            name="recovery",
            result=f"{result}; {num_blocks} blocks, {num_blocks - recoveries[0].block} of them after it, differ by at "
            f"most {max(errors):.1e} from the undisturbed video, {tolerance:g} is allowed",
            passed=all(error <= tolerance for error in errors),
            numbers={**numbers, "error": max(errors)},
        )

    async def stop(self) -> Check:
        """End the workers. A second time it does nothing."""
        began_s = asyncio.get_running_loop().time()
        await self._engine.stop()
        took_s = asyncio.get_running_loop().time() - began_s
        return Check(name="stop", result=f"all workers ended after {took_s:.1f} s", passed=True)

    def tensor(self, data: bytes) -> Tensor:
        """The latents of a block [F, C, Y, X]."""
        return tensor_of(data, self.dtype_name, self.subject.latent_shape)

    async def _make(self, output: Output) -> tuple[Video, bool]:
        """The video, and whether all of it came. Raises ``HiarError``."""
        shown, request = Video(), self.subject.request(output)
        video = await self._engine.open(request)
        try:
            async for fragment in video.read():
                shown.take(fragment.data, fragment.num_frames)
        finally:
            await _close(video)  # one that took too long would keep the next one waiting for its pages
        is_complete = video.end_reason == EndReason.COMPLETED and shown.num_frames == self.subject.num_frames
        return shown, is_complete


async def _blocks(viewer: Viewer, reading: "asyncio.Task[None]", count: int) -> None:
    """Return once the viewer has so many blocks, or will get no more."""
    while len(viewer.blocks) < count and not reading.done():
        await asyncio.sleep(POLL_S)


async def _while_read(reading: "asyncio.Task[None]", work: Coroutine[None, None, Loss]) -> Loss:
    """What ``work`` returns, which waits for blocks that are read meanwhile.

    Raises what ends the reading before that, and ``RuntimeError`` when the video was simply over.
    """
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working, reading}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        reading.result()
        raise RuntimeError("the video was over before its worker was replaced")
    finally:
        working.cancel()


async def _close(video: VideoHandle) -> None:
    """End a video, if it still runs. Raises ``TimeoutError``."""
    async with asyncio.timeout(CLOSE_S):
        await video.stop()
