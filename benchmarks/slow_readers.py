"""What slow readers and half-open connections cost everybody else, and what becomes of them.

    python -m benchmarks.slow_readers
    python -m benchmarks.slow_readers --readers 20 --half-open 20 --rounds 2 --holders 3 --out build

A real server with the model that ships. First, in turns, without and with a crowd that reads one running video slowly
or stops within its header: how long a newcomer waits for its first fragment, how late the server's loop is, how much
memory it has. Then slow makers hold all places, and a good client comes from another address.
"""

import argparse
import itertools
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import httpx

from benchmarks.crowd import crowd

REPORTS = Path(__file__).parent / "reports"
SIZE = "96x96"
PROMPT = "a blue square bounces around on sand"
BYTES_PER_S = 1000
PROBE_EVERY_S = 0.02
SETTLED_S = 3
"""After which a crowd is there and does not come any more: what its coming costs is another question."""
NUM_PLACES = 2
QUEUE_S = 120
"""For how long the server lets a request wait for a place."""
BUCKET = re.compile(r'hiar_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)')
SLOW_ENDS = re.compile(r'hiar_videos_finished_total\{reason="slow_client"\} (\S+)')


@dataclass
class Side:
    """What was seen without the crowd, or with it."""

    firsts_s: list[float] = field(default_factory=list)
    """Seconds until a newcomer's first fragment."""
    probes_s: list[float] = field(default_factory=list)
    """Seconds that `/livez` took, asked all the time."""
    lags: dict[float, float] = field(default_factory=dict)
    """How often the loop was at most so late, by its own metric."""
    memory_mb: float = 0.0


@dataclass(frozen=True)
class Hold:
    """What became of slow makers in all places."""

    num_accepted: int
    """Of the makers, who ran or waited; the others were refused."""
    is_apart: bool
    """Whether each had an address of its own."""
    num_slow_ends: int
    """Of theirs by the time at which the good client was served."""
    refused_s: float
    """For how long a good client was refused."""
    served_s: float
    """How long it waited then for its first fragment."""


@dataclass
class RunningServer:
    """The process."""

    url: str
    port: int
    pid: int

    def metrics(self) -> str:
        """The text of `/metrics`."""
        return httpx.get(f"{self.url}/metrics").text

    def num_videos(self) -> int:
        """That run or wait."""
        load = httpx.get(f"{self.url}/v1/capabilities").json()["load"]
        return int(load["running"] + load["waiting"])

    def memory_mb(self) -> float:
        """Resident, of the process that answers."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def lags(self) -> dict[float, float]:
        """Cumulative counts by upper bound in seconds."""
        return {float(bound): float(count) for bound, count in BUCKET.findall(self.metrics())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report."""
    asked = _arguments(arguments)
    with running_server("--max-videos", str(NUM_PLACES)) as server:
        without, beside, cuts = compare(server, asked.readers, asked.half_open, asked.rounds)
    holds = [hold_all(asked.holders, is_apart=is_apart) for is_apart in (False, True)] if asked.holders else []
    text = report(asked, without, beside, cuts, holds)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "slow_readers.md").write_text(text)
    print(text)


@contextmanager
def running_server(*flags: str) -> Iterator[RunningServer]:
    """Ready; killed in the end."""
    program = str(Path(sys.executable).with_name("hiar-server"))
    command = [program, "--port", "0", "--data", "memory", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    draining = threading.Thread(target=process.stderr.read)
    try:
        found = next(filter(None, (re.search(r"listening on (\S+:(\d+))", line) for line in process.stderr)), None)
        draining.start()
        if found is None:
            sys.exit("slow_readers: the server did not start")
        server = RunningServer(found[1], int(found[2]), process.pid)
        while httpx.get(f"{server.url}/readyz").status_code != 200:
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        draining.join()
        process.stderr.close()


def compare(
    server: RunningServer, num_readers: int, num_half_open: int, rounds: int
) -> tuple[Side, Side, dict[str, int]]:
    """In turns without and with the crowd. Returns both sides, and how many of the crowd were cut off."""
    without, beside, cuts = Side(), Side(), dict[str, int]()
    with watching(server) as path:
        first_fragment_s(server)
        for _ in range(rounds):
            observe(server, without)
            who = {"readers": num_readers, "half_open": num_half_open, "bytes_per_s": BYTES_PER_S}
            with crowd(server.port, path=f"{path}/stream?from=live", **who) as cut:
                observe(server, beside)
            cuts = {name: cuts.get(name, 0) + count for name, count in cut.items()}
    return without, beside, cuts


def observe(server: RunningServer, side: Side) -> None:
    """Let two newcomers come, and look at the loop meanwhile."""
    time.sleep(SETTLED_S)
    before, done = server.lags(), threading.Event()
    probe = threading.Thread(target=_probe, args=(server.url, side.probes_s, done))
    probe.start()
    for _ in range(2):
        side.firsts_s.append(first_fragment_s(server))
        time.sleep(0.5)
    done.set()
    probe.join()
    for bound, count in server.lags().items():
        side.lags[bound] = side.lags.get(bound, 0) + count - before[bound]
    side.memory_mb = max(side.memory_mb, server.memory_mb())


def first_fragment_s(server: RunningServer) -> float:
    """Ask for a second of video; returns the seconds until its first bytes."""
    body = {"prompt": PROMPT, "seconds": 1, "size": SIZE, "pace": "fast"}
    began = time.monotonic()
    with httpx.stream("POST", f"{server.url}/v1/generate", json=body, timeout=QUEUE_S + 10) as answer:
        chunks = answer.raise_for_status().iter_raw()
        next(chunks)
        took = time.monotonic() - began
        for _ in chunks:
            pass
    return took


@contextmanager
def watching(server: RunningServer) -> Iterator[str]:
    """Have an endless video, and a viewer that keeps up with it. Yields its path."""
    body = {"prompt": PROMPT, "size": SIZE}
    with httpx.stream("POST", f"{server.url}/v1/generate", json=body, timeout=60) as answer:
        chunks, over = answer.iter_raw(), threading.Event()
        reading = threading.Thread(target=lambda: next(itertools.dropwhile(lambda _: not over.is_set(), chunks), None))
        reading.start()
        yield answer.headers["Location"]
        over.set()
        reading.join()


def hold_all(num_holders: int, *, is_apart: bool) -> Hold:
    """Let slow makers come until no more are accepted, then ask for a video from another address."""
    who = {"readers": num_holders, "half_open": 0, "bytes_per_s": BYTES_PER_S, "again": False, "apart": is_apart}
    with running_server("--max-videos", str(NUM_PLACES)) as server:
        first_fragment_s(server)
        with crowd(server.port, path="/v1/generate", body={"prompt": PROMPT, "size": "128x128", "pace": "fast"}, **who):
            num_accepted = _settled(server)
            refused_s, served_s = _ask_until_served(server)
            found = SLOW_ENDS.search(server.metrics())
    return Hold(num_accepted, is_apart, int(float(found[1])) if found else 0, refused_s, served_s)


def _ask_until_served(server: RunningServer) -> tuple[float, float]:
    """For how long a good client was refused, asking every second, and then how long it waited in the queue."""
    began = time.monotonic()
    while True:
        asked_at = time.monotonic()
        try:
            return asked_at - began, first_fragment_s(server)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 429:
                raise
        time.sleep(1)


def _settled(server: RunningServer) -> int:
    """How many videos run and wait, once no more come."""
    before = -1
    while (now := server.num_videos()) != before or now < NUM_PLACES:
        before = now
        time.sleep(SETTLED_S)
    return now


def _probe(url: str, times_s: list[float], done: threading.Event) -> None:
    with httpx.Client(timeout=30) as client:
        while not done.wait(PROBE_EVERY_S):
            began = time.monotonic()
            client.get(f"{url}/livez")
            times_s.append(time.monotonic() - began)


def report(asked: argparse.Namespace, without: Side, beside: Side, cuts: dict[str, int], holds: Sequence[Hold]) -> str:
    """For people."""
    ratio = median(beside.firsts_s) / median(without.firsts_s)
    sides = (without, beside)
    lines = [
        "# Slow readers",
        "",
        f"`python -m benchmarks.slow_readers`: a server with `models/tiny` at {SIZE} on the CPU, one endless video",
        f"with a good viewer, and {asked.rounds} times in turns without and with a crowd: {asked.readers} readers",
        f"of it that take {BYTES_PER_S} B/s each, and {asked.half_open} connections that stop within the header.",
        f"Who is cut off comes again. Python {platform.python_version()}, {os.cpu_count()} cores;",
        "other programs may have run beside it.",
        "",
        "| | without | with the crowd |",
        "|---|---|---|",
        _row("a newcomer's first fragment, median", *(f"{median(side.firsts_s) * 1e3:.0f} ms" for side in sides)),
        _row("`/livez`, p99", *(f"{quantiles(side.probes_s, n=100)[98] * 1e3:.1f} ms" for side in sides)),
        _row("loop lag by its metric, p99", *(f"<= {_p99_bound_s(side.lags) * 1e3:g} ms" for side in sides)),
        _row("memory of the server's process", *(f"{side.memory_mb:.0f} MB" for side in sides)),
        "",
        f"The first fragment takes {ratio:.2f} times as long ({len(beside.firsts_s)} newcomers each).",
        f"Cut off meanwhile: {cuts['readers']} readers, {cuts['half_open']} half-open.",
    ]
    for hold in holds:
        whose = "each from an address of its own" if hold.is_apart else "all from one address"
        lines += [
            "",
            f"{asked.holders} makers that take {BYTES_PER_S} B/s of endless videos, {whose}: {hold.num_accepted} hold",
            f"the {NUM_PLACES} places and wait. A good client that comes from another address",
            f"{_served_words(hold)}; {hold.num_slow_ends} of theirs had ended as `slow_client` by then.",
        ]
    return "\n".join([*lines, ""])


def _served_words(hold: Hold) -> str:
    refused = f"is refused (429) for {hold.refused_s:.0f} s, then " if hold.refused_s else ""
    return f"{refused}has its first fragment after {hold.served_s:.0f} s"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _p99_bound_s(lags: dict[float, float]) -> float:
    """The lowest bound that 99 in 100 are within."""
    return min(bound for bound, count in lags.items() if count >= 0.99 * max(lags.values()))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.slow_readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=200, help="slow readers (default: %(default)s)")
    parser.add_argument(
        "--half-open", type=int, default=200, help="connections without a header (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=8, help="turns (default: %(default)s)")
    parser.add_argument("--holders", type=int, default=10, help="slow makers of videos; 0: none (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder of the report (default: benchmarks/reports)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
