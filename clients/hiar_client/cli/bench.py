"""``hiar bench``: makes load for a server and tells what its viewers saw."""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from hiar_client.async_client import AsyncClient
from hiar_client.bench.chart import chart
from hiar_client.bench.plan import BEHAVIOURS, PROMPTS, Load, mix_of
from hiar_client.bench.report import json_of, report, words_of
from hiar_client.bench.run import Run
from hiar_client.bench.summary import STEADY, summary_of
from hiar_client.cli.exits import DONE, FAILED, UsageError
from hiar_client.cli.options import Commands, add_command, positive
from hiar_client.client import Client
from hiar_client.exchange import Retries

_MIX = "reader=6,slow=1,leaver=1,changer=1,resumer=1"
_TELL_EVERY_S = 2.0
_CONCURRENCY, _DURATION_S = 2, 30.0
_EXAMPLES = """\
  hiar bench --concurrency 2 --requests 4 --seconds 2              # a viewer comes when another has gone
  hiar bench --rate 2 --duration 2 --seconds 2 --mix reader=3,leaver=1
  hiar bench --rate 1 --duration 2 --seconds 2 --json bench.json --plot bench.svg

What viewers do (--mix): """ + "; ".join(f"{name} {text}" for name, text in BEHAVIOURS.items())


def add(commands: Commands, server: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = add_command(commands, "bench", "make load, and tell what viewers see", _EXAMPLES, server)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--rate", type=positive, metavar="N", help="viewers that come in a second, at random (open loop)")
    who.add_argument("--concurrency", type=_count, metavar="N", help="viewers at a time (closed loop; 2)")
    parser.add_argument("--duration", type=positive, metavar="S", help="seconds in which viewers come (30)")
    parser.add_argument("--requests", type=_count, metavar="N", help="viewers in all (no limit)")
    parser.add_argument("--mix", default=_MIX, metavar="WHO=N,...", help=f"weights of what viewers do ({_MIX})")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="one a line (a list of its own)")
    parser.add_argument("--seconds", type=positive, default=10.0, metavar="N", help="length of each video (10)")
    parser.add_argument("--pace", choices=("realtime", "fast"), default="realtime", help="of the videos (realtime)")
    parser.add_argument("--size", metavar="WxH", help="of the videos (the model's first)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed: the same viewers (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of it, as SVG")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the report only")
    parser.set_defaults(run=_bench)


def _bench(client: Client, options: argparse.Namespace) -> int:
    load = _load(options)
    told = client.capabilities()
    run = Run(load)
    status = asyncio.run(_go(run, client.url, is_quiet=options.quiet))
    summary = summary_of(run.viewings, run.took_s)
    about = {"model": told.model, "slots": told.load.slots, "load_average": os.getloadavg(), "cpus": os.cpu_count()}
    print(report(load, summary, about))
    if options.json is not None:
        options.json.write_text(json_of(load, summary, run.viewings, about), encoding="utf-8")
    if options.plot is not None:
        options.plot.write_text(chart(run.viewings, run.took_s, words_of(load)), encoding="utf-8")
    return status if summary.completed or status else FAILED


def _load(options: argparse.Namespace) -> Load:
    has_bound = options.duration is not None or options.requests is not None
    try:
        mix = mix_of(options.mix)
    except ValueError as error:
        raise UsageError(f"--mix: {error}") from error
    return Load(
        rate=options.rate,
        concurrency=None if options.rate is not None else options.concurrency or _CONCURRENCY,
        duration_s=options.duration if has_bound else _DURATION_S,
        requests=options.requests,
        mix=mix,
        prompts=PROMPTS if options.prompts is None else _prompts(options.prompts),
        seconds=options.seconds,
        pace=options.pace,
        size=options.size,
        seed=options.seed,
    )


def _prompts(path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise UsageError(f"there is no prompt in {path}")
    return prompts


async def _go(run: Run, url: str, *, is_quiet: bool) -> int:
    """Run to the end, or until a signal comes; what was seen until then stays. Returns the exit status."""
    stopped_by: list[int] = []
    loop = asyncio.get_running_loop()
    async with AsyncClient(url, os.environ.get("HIAR_KEY"), retries=Retries(attempts=1)) as client:
        going = asyncio.create_task(run.go(client))

        def stop(number: int) -> None:
            stopped_by.append(number)
            going.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        telling = asyncio.create_task(_tell(run)) if not is_quiet else None
        with suppress(asyncio.CancelledError):
            await going
        if telling is not None:
            telling.cancel()
    return 128 + stopped_by[0] if stopped_by else DONE


async def _tell(run: Run) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        viewings = run.viewings
        there = sum(viewing.end is None for viewing in viewings)
        stalls = sum(1 for viewing in viewings if viewing.behaviour in STEADY for _ in viewing.stalls())
        refused = sum(viewing.was_refused for viewing in viewings)
        words = f"{there} viewers there, {len(viewings)} came, {refused} refused, {stalls} stalls"
        print(f"hiar: {run.now():.0f} s: {words}", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)
