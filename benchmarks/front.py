"""The front by itself: instant workers under the real desk and shell, and readers that take every block at once.

    python -m benchmarks.front
    python -m benchmarks.front --videos 1,50,200 --events 2000 --out build/front

For each number of videos it measures what an event costs and how late the event loop wakes who sleeps on it. Blocks are
a few bytes and cost nothing to make, so both show what the front alone takes. ``benchmarks.newcomer`` adds what their
number means to one more viewer.
"""

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks import newcomer
from engine import EngineConfig, Observer, Pace, PromptAt, VideoHandle, VideoRequest, read_manifest
from engine.front.events import Event
from engine.front.shell import Shell
from engine.law.placement import PassCosts, place
from engine.messages import (
    BlockDone,
    BlockTicket,
    Cancel,
    CloseTicket,
    ForFront,
    PromptEncoded,
    Question,
    Ticket,
    VideoClosed,
)
from engine.request import TensorBytes

MODEL = Path("models/tiny")
REPORTS = Path(__file__).parent / "reports"
NUM_VIDEOS = (1, 50, 200, 1000)
NUM_EVENTS = 20_000
NUM_BESIDE = 200
NEWCOMERS = 9
"""Of which the median is told."""
SLEEP_S = 0.005
"""Between two looks at how late the loop is."""
DEVICES = ("cpu",) * 5
EMBEDDING = TensorBytes(dtype="float32", shape=(1, 1), data=bytes(4))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured with some videos."""

    num_videos: int
    num_events: int
    event_us: float
    """Median seconds of the desk an event, in millionths."""
    event_p99_us: float
    lag_p50_ms: float
    lag_p99_ms: float
    """How much later than asked the loop woke a sleeper."""
    blocks_per_s: float


class InstantWorkers:
    """Workers that have done everything as soon as they are told."""

    def __init__(self) -> None:
        self.plan = place(
            read_manifest(MODEL).rollout, DEVICES, PassCosts(denoise_s=(1e-9, 2e-9, 3e-9, 4e-9), decode_s=1e-9)
        )
        self.shell: Shell | None = None

    def ask(self, question: Question) -> None:
        """Every prompt means the same."""
        self._say(0, PromptEncoded(request=question.request, embedding=EMBEDDING))

    def send_chain(self, chain: int, message: Ticket | Cancel) -> None:
        """A block is made; a video is closed at all its workers."""
        ranks = [part.rank for part in self.plan.chains[chain]]
        match message:
            case BlockTicket():
                self._say(ranks[-1], _block(message))
            case CloseTicket():
                for rank in ranks:
                    self._say(rank, VideoClosed(video=message.video, pages_used=0))
            case _:
                pass

    def _say(self, rank: int, message: ForFront) -> None:
        assert self.shell is not None
        asyncio.get_running_loop().call_soon(self.shell.receive, rank, message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write a table and a plot."""
    asked = _arguments(arguments)
    rows = [asyncio.run(measure(count, asked.events)) for count in asked.videos]
    wait = asyncio.run(newcomer.measure(asked.beside, NEWCOMERS))
    asked.out.mkdir(parents=True, exist_ok=True)
    text = report(rows, wait)
    (asked.out / "front.md").write_text(text)
    plot(rows, asked.out / "front.png")
    print(text)


async def measure(num_videos: int, num_events: int) -> Row:
    """Let so many videos run until so many events were handled."""
    workers, times_s, lags_s = InstantWorkers(), list[float](), list[float]()
    config = EngineConfig(manifest=read_manifest(MODEL), max_videos=num_videos, max_queue=num_videos)
    shell = workers.shell = Shell(config, workers, time.monotonic, Observer())
    _time_events(shell, times_s)
    shell.serve(workers.plan)
    request = _request(config)
    videos = [shell.open(request, 0.0) for _ in range(num_videos)]
    readers = [asyncio.create_task(_read(video)) for video in videos]
    sleeper = asyncio.create_task(_look_how_late(lags_s))
    await asyncio.sleep(0.1)
    times_s.clear()
    lags_s.clear()
    began_s = time.monotonic()
    while len(times_s) < num_events or len(lags_s) < 100:
        await asyncio.sleep(SLEEP_S)
    took_s, count = time.monotonic() - began_s, len(times_s)
    blocks = sum(video.kept.stop for video in videos)
    sleeper.cancel()
    await asyncio.gather(*(video.stop() for video in videos))
    await asyncio.gather(*readers)
    return Row(
        num_videos=num_videos,
        num_events=count,
        event_us=median(times_s) * 1e6,
        event_p99_us=quantiles(times_s, n=100)[98] * 1e6,
        lag_p50_ms=median(lags_s) * 1e3,
        lag_p99_ms=quantiles(lags_s, n=100)[98] * 1e3,
        blocks_per_s=blocks / took_s,
    )


def report(rows: Sequence[Row], wait: newcomer.Wait) -> str:
    """For people."""
    python, cores = platform.python_version(), os.cpu_count()
    lines = [
        "# The front by itself",
        "",
        "`python -m benchmarks.front`: workers that answer at once, readers that take every block at once, videos of",
        f"pace `fast`. Python {python}, {cores} cores; other programs may have run beside it.",
        "",
        "| videos | events | an event, median | an event, p99 | loop lag, median | loop lag, p99 | blocks/s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.num_videos} | {row.num_events} | {row.event_us:.0f} µs | {row.event_p99_us:.0f} µs "
        f"| {row.lag_p50_ms:.1f} ms | {row.lag_p99_ms:.1f} ms | {row.blocks_per_s:.0f} |"
        for row in rows
    ]
    picture = "![time of an event and loop lag by number of videos](front.png)"
    return "\n".join([*lines, "", newcomer.sentence(wait), "", picture, ""])


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time of an event and lag of the loop over the number of videos."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the plot alone

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    event, lag = figure.subplots(1, 2)
    counts = [row.num_videos for row in rows]
    event.plot(counts, [row.event_us for row in rows], "o-", label="median")
    event.plot(counts, [row.event_p99_us for row in rows], "o--", label="p99")
    event.set(xscale="log", xlabel="videos", ylabel="µs an event", ylim=(0, None))
    lag.plot(counts, [row.lag_p50_ms for row in rows], "o-", label="median")
    lag.plot(counts, [row.lag_p99_ms for row in rows], "o--", label="p99")
    lag.set(xscale="log", xlabel="videos", ylabel="loop lag, ms", ylim=(0, None))
    for axes in (event, lag):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _time_events(shell: Shell, times_s: list[float]) -> None:
    handle = shell.desk.handle

    def timed(event: Event, now: float) -> object:
        began_s = time.perf_counter()
        commands = handle(event, now)
        times_s.append(time.perf_counter() - began_s)
        return commands

    shell.desk.handle = timed  # type: ignore[method-assign, assignment]


async def _read(video: VideoHandle) -> None:
    async for _ in video.read():
        await asyncio.sleep(0)


async def _look_how_late(lags_s: list[float]) -> None:
    while True:
        due_s = time.monotonic() + SLEEP_S
        await asyncio.sleep(SLEEP_S)
        lags_s.append(max(0.0, time.monotonic() - due_s))


def _request(config: EngineConfig) -> VideoRequest:
    width_px, height_px = config.manifest.video.sizes[0]
    return VideoRequest(
        prompts=(PromptAt(at_s=0, text="x"),),
        width_px=width_px,
        height_px=height_px,
        fps=config.manifest.video.fps,
        seconds=None,
        pace=Pace.FAST,
    )


def _block(ticket: BlockTicket) -> BlockDone:
    return BlockDone(
        video=ticket.video,
        block=ticket.block,
        num_frames=ticket.num_frames,
        data=b"block",
        latents=None,
        decode_s=0.0,
        encode_s=0.0,
    )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.front", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = ",".join(map(str, NUM_VIDEOS))
    parser.add_argument("--videos", type=_counts, default=NUM_VIDEOS, help=f"numbers of videos (default: {counts})")
    parser.add_argument("--events", type=int, default=NUM_EVENTS, help="to measure with each (default: %(default)s)")
    parser.add_argument(
        "--beside", type=int, default=NUM_BESIDE, help="videos that a newcomer comes to (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder of the report (default: benchmarks/reports)")
    return parser.parse_args(arguments)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(count) for count in text.split(","))


if __name__ == "__main__":
    main()
