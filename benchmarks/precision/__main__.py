"""The command line of ``benchmarks.precision``, and its report."""

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import benchmarks.precision
from benchmarks.precision.operations import (
    FFN_WIDTH,
    KINDS,
    MODEL_WIDTH,
    NUM_HEADS,
    NUM_PAGES,
    NUM_ROWS,
    NUM_TOKENS,
    WIDTH,
    attention_errors,
    linear_errors,
)
from benchmarks.precision.rollouts import OPTIONS, Subject, drifts, golden, small_model

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "reports" / "precision.md"
GOLDEN, SMALL = ROOT / "tests" / "data" / "golden" / "public-a", ROOT / "models" / "tiny"


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.precision",
        description=benchmarks.precision.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--blocks", type=int, default=24, help="blocks of each roll-out (default: 24)")
    parser.add_argument(
        "--out", type=Path, default=REPORT, help="the report (default: benchmarks/reports/precision.md)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # tensors are small; threads would wait for each other
    with torch.inference_mode():
        parts = [_operations()]
        for subject in (golden(GOLDEN), small_model(SMALL)):
            parts.append(_rollouts(subject, arguments.blocks))
    text = "\n\n".join([_head(arguments.blocks), *parts]) + "\n"
    arguments.out.write_text(text)
    print(text)


def _head(num_blocks: int) -> str:
    return f"""# What fewer bits cost

    python -m benchmarks.precision{"" if num_blocks == 24 else f" --blocks {num_blocks}"}

{_cpu()}, torch {torch.__version__}. An error is the norm of the difference over the norm of what is exact (1 would be
no likeness at all). Computed by the plain PyTorch twins of the kernels, in float32 where nothing else is said; a GPU
adds the error of bfloat16. No speed was measured. Where a model's weights are random, attention changes little of its
pictures, and what pages and attention cost comes out too small."""


def _operations() -> str:
    return f"""## Single operations, against float64

Attention of {NUM_TOKENS} queries to {(NUM_PAGES + 1) * NUM_TOKENS} keys, of which {NUM_PAGES} pages of {NUM_TOKENS};
{NUM_HEADS} heads of {WIDTH}. Outlier channels: every 32nd channel of keys and values is ten times as large. Biased:
each channel of the keys has an offset of its own, of standard deviation 5. Pages have a scale for each token and head;
two lines show what coarser scales would give.

{_by_kind(attention_errors)}

Products of {NUM_ROWS} rows; widths {MODEL_WIDTH} to {MODEL_WIDTH}, and {FFN_WIDTH} to {MODEL_WIDTH}.

{_by_kind(linear_errors)}"""


def _rollouts(subject: Subject, num_blocks: int) -> str:
    print(f"{subject.name}: {num_blocks} blocks, {len(OPTIONS) + 1} times", flush=True)
    sizes, rollout = subject.manifest.transformer, subject.manifest.rollout
    errors, rounding = drifts(subject, num_blocks)
    rows = [[str(block), *(f"{errors[name][block]:.2e}" for name in OPTIONS)] for block in range(num_blocks)]
    mean = ["mean", *(f"{sum(errors[name]) / num_blocks:.2e}" for name in OPTIONS)]
    return f"""## Roll-out of {subject.name}

{subject.manifest.description or "Random weights of the recorded roll-out."} {sizes.num_layers} layers of width
{sizes.dim}, {sizes.num_heads} heads of {sizes.head_dim}, {subject.num_tokens} tokens
a block, window of {rollout.window_blocks} blocks, {rollout.num_stages} stages; {sizes.num_layers - 2} of the layers
have fp8 linears. Error of the finished latents against the same roll-out without the option, by block. In the worst
layer, e4m3 rounds the keys that the roll-out left in its pages by {rounding["keys"]:.2e}, and the values by
{rounding["values"]:.2e}.

{_table(["block", *OPTIONS], [*rows, mean])}"""


def _by_kind(errors_of: Callable[[str], dict[str, float]]) -> str:
    by_kind = {kind: errors_of(kind) for kind in KINDS}
    ways = list(by_kind[KINDS[0]])
    return _table(["", *KINDS], [[way, *(f"{by_kind[kind][way]:.2e}" for kind in KINDS)] for way in ways])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cpu() -> str:
    """What the kernel calls the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
