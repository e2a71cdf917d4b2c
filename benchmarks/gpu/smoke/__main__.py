"""The command line of ``benchmarks.gpu.smoke``."""

import argparse
import faulthandler
import logging
import re
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import benchmarks.gpu.smoke
from benchmarks.gpu.smoke.check import Check
from benchmarks.gpu.smoke.report import NAME, SmokeReport
from benchmarks.gpu.smoke.run import MINUTES, Smoke, clock_of, scratch_folder
from benchmarks.true_shapes.sizes import SIZES

REPORTS = Path(__file__).parents[2] / "reports"
GRACE_S = 60.0
"""How long after its time a run is ended from outside: where even the ends of its steps stand still."""


def main() -> None:
    """Run all steps, and write the report after each, so that a run cut short keeps what it has."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    faulthandler.dump_traceback_later(60 * arguments.minutes + GRACE_S, exit=True)
    logging.basicConfig(level=logging.INFO, format="  %(message)s", stream=sys.stdout)
    dry = arguments.device[0] == "cpu"
    folder = arguments.out or (Path(tempfile.mkdtemp(prefix="hiar-smoke-report-")) if dry else REPORTS)
    with scratch_folder() as scratch:
        smoke = Smoke(
            devices=arguments.device,
            size=arguments.size,
            model=arguments.model,
            clock=clock_of(arguments.minutes),
            scratch=scratch,
        )
        checks: list[Check] = []
        for check in smoke.run():
            checks.append(check)
            print(f"{check.name}: {check.result} [{check.verdict}]", flush=True)
            report = _report(smoke, checks)
            report.write(folder)
    print(f"wrote {folder / NAME}.md and .json", flush=True)
    sys.exit(0 if report.passed else 1)


def _report(smoke: Smoke, checks: list[Check]) -> SmokeReport:
    return SmokeReport(
        command=" ".join(["python -m benchmarks.gpu.smoke", *sys.argv[1:]]),
        devices=smoke.devices,
        machine=smoke.machine,
        model=str(smoke.model or "random weights"),
        size=smoke.size,
        took_s=smoke.clock.took_s,
        checks=checks,
    )


def _leave(number: int, frame: FrameType | None) -> None:
    """Told to end: what was started and made is ended and removed on the way out."""
    sys.exit(128 + number)


def _devices(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r"cpu(,cpu)*|cuda:\d+(,cuda:\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor GPUs as in cuda:0,cuda:1")
    return tuple(text.split(","))


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} minutes are no time")
    return minutes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu.smoke",
        description=benchmarks.gpu.smoke.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--device", type=_devices, default="cuda:0", help="cpu, or GPUs as in cuda:0,cuda:1 (default: %(default)s)"
    )
    parser.add_argument("--size", choices=SIZES, default="real", help="of the model that is made (default: real)")
    parser.add_argument("--model", type=Path, help="a model folder to start in place of one with random weights")
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help="for all steps together (default: 10)")
    where = "folder of the report (default: benchmarks/reports; on a CPU a temporary one)"
    parser.add_argument("--out", type=Path, help=where)
    return parser.parse_args()


if __name__ == "__main__":
    main()
