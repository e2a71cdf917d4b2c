"""The command line of ``benchmarks.gpu``: which sections run, and how long each may take."""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import benchmarks.gpu
from benchmarks.gpu import attention, ceilings, decoders, elementwise, narrow, passes, rates
from benchmarks.gpu.machine import describe, device_name, read_smi, slug
from benchmarks.gpu.record import Section
from benchmarks.gpu.report import DRY_RUN, Report
from benchmarks.gpu.sizes import DRY, REAL
from benchmarks.gpu.timing import Bench

REPORTS = Path(__file__).parents[1] / "reports"


@dataclass(frozen=True)
class Part:
    """A section that can be asked for."""

    title: str
    measure: Callable[[Bench, Section], None]
    share: float
    """Of the time that is left, against the sections still to come."""


PARTS = {
    "ceilings": Part("Ceilings of the device", ceilings.measure, 0.07),
    "attention": Part("Attention", attention.measure, 0.33),
    "passes": Part("Passes of the transformer", passes.measure, 0.28),
    "narrow": Part("Fewer bits", narrow.measure, 0.06),
    "decoders": Part("Decoders", decoders.measure, 0.14),
    "rates": Part("Frames a second, derived from the passes", rates.measure, 0.01),
    "elementwise": Part("Fused elementwise kernels", elementwise.measure, 0.17),
}
"""In the order in which they run; what others derive from comes first."""


def main() -> None:
    """Measure, and write the report after every section, so that a run cut short keeps what it has."""
    arguments = _arguments()
    bench = _open(arguments.dry_run)
    bench.specialised = arguments.specialised and bench.on_gpu
    machine = describe(bench.device)
    folder = arguments.out or (Path(tempfile.mkdtemp(prefix="hiar-gpu-")) if arguments.dry_run else REPORTS)
    name = f"gpu-{slug(device_name(bench.device))}"
    if arguments.dry_run:
        print(DRY_RUN, flush=True)
    print("; ".join(f"{what} {value}" for what, value in machine.items()), flush=True)
    began_s, sections = time.monotonic(), []
    for part_name in arguments.only:
        sections.append(_run(bench, part_name, arguments.only, began_s + arguments.budget_s))
        report = Report(
            command=" ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
            machine=machine,
            clocks_after={what: value for what, value in read_smi(bench.device).items() if what != "driver"},
            dry_run=arguments.dry_run,
            took_s=time.monotonic() - began_s,
            sections=sections,
        )
        report.write(folder, name)
    print(f"wrote {folder / name}.md, .svg and .json", flush=True)


def _run(bench: Bench, name: str, chosen: list[str], end_s: float) -> Section:
    """One section within its share of the time that is left."""
    part, section = PARTS[name], Section(name, PARTS[name].title)
    to_come = sum(PARTS[other].share for other in chosen[chosen.index(name) :])
    began_s = time.monotonic()
    bench.deadline_s = began_s + (end_s - began_s) * part.share / to_come
    print(f"{name}: {bench.left_s():.0f} s at most", flush=True)
    if bench.left_s() <= 0:
        section.skip("all of it", "no time left")
    else:
        section.attempt("the rest", lambda: part.measure(bench, section))
    gc.collect()
    if bench.on_gpu:
        section.attempt("freeing memory", torch.cuda.empty_cache)  # fails where a kernel broke the device's context
    section.took_s = time.monotonic() - began_s
    return section


def _open(dry_run: bool) -> Bench:
    """The device and the sizes. Exits when there is no GPU to measure."""
    torch.manual_seed(0)
    if dry_run:
        torch.set_num_threads(1)  # tensors are tiny; threads would wait for each other
        return Bench(device=torch.device("cpu"), dtype=torch.float32, sizes=DRY)
    if not torch.cuda.is_available():
        sys.exit("gpu: torch finds no CUDA device; --dry-run takes the same paths on the CPU")
    device = torch.device("cuda", torch.cuda.current_device())
    return Bench(device=device, dtype=torch.bfloat16, sizes=REAL)


def _arguments() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=benchmarks.gpu.__doc__, formatter_class=formatter
    )
    parser.add_argument(
        "--only", type=_chosen, default=list(PARTS), help=f"sections, as in attention,passes; of {','.join(PARTS)}"
    )
    parser.add_argument(
        "--budget-s", type=float, default=540, help="seconds in all; what does not fit is left out (default: 540)"
    )
    parser.add_argument("--out", type=Path, help="folder of the report (default: benchmarks/reports)")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the CPU; writes to a temporary folder unless --out"
    )
    parser.add_argument(
        "--specialised",
        action="store_true",
        help="time the warp-specialised attention too (sm_90); it has never run on a GPU and could stand still",
    )
    return parser.parse_args()


def _chosen(text: str) -> list[str]:
    asked = text.split(",")
    unknown = sorted(set(asked) - PARTS.keys())
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no section {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]


if __name__ == "__main__":
    main()
