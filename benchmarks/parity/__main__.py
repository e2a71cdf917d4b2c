"""Compares this project with recorded numbers of the reference implementations.

    python -m benchmarks.parity tests/data/golden/public-a
    python -m benchmarks.parity tests/data/golden/public-a --workers 1,2,4,5
    python -m benchmarks.parity tests/data/golden/longlive --only switch,early_switch
    python -m benchmarks.parity tests/data/golden/public-vae --decode-workers 1,2,3

Any folder of the golden shapes will do; its kind is told by its files: roll-outs of one model or of a public checkpoint
(``rollout.safetensors``), a VAE (``codec.safetensors``) or a text encoder (``encoding.safetensors``). A roll-out runs
through the oracle and through the real engine: worker processes, tickets and pages; fused and separate; alone and
beside other videos; on as many workers as asked. Workers beyond what a chain can use become further chains.
One line per roll-out and path with its largest absolute error; exit status 0 only if all are within 1e-4.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.parity.lines import TOLERANCE, Line
from benchmarks.parity.networks import compare_text, compare_vae
from benchmarks.parity.rollouts import MOST, compare_rollouts
from engine import HiarError


def main(command_line: Sequence[str] | None = None) -> None:
    """Command line; exits the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with config.json and recorded tensors")
    parser.add_argument(
        "--workers",
        default=f"1,{MOST}",
        type=worker_counts,
        help=f"worker counts to run a roll-out on, as in 1,2,4; '{MOST}': as many as a chain of its order can use "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--decode-workers",
        default=(1,),
        type=numbers,
        help="worker counts to cut a VAE's decoder over, as in 1,2,3 (default: 1)",
    )
    parser.add_argument("--only", metavar="NAME,NAME", help="roll-outs to compare (default: all of the folder)")
    arguments = parser.parse_args(command_line)
    only = None if arguments.only is None else arguments.only.split(",")
    all_ok = True
    try:
        for line in compare(arguments.folder, arguments.workers, only, arguments.decode_workers):
            all_ok &= line.ok
            print(line, flush=True)
    except (HiarError, ValueError, KeyError, OSError) as error:
        sys.exit(f"parity: {f'{arguments.folder} lacks {error}' if isinstance(error, KeyError) else error}")
    print(f"{'all within' if all_ok else 'NOT within'} {TOLERANCE:g}")
    sys.exit(0 if all_ok else 1)


def numbers(text: str) -> tuple[int, ...]:
    """Numbers from 1 on. Raises ``ValueError``."""
    counts = tuple(map(int, text.split(",")))
    if min(counts) < 1:
        raise ValueError(text)
    return counts


def worker_counts(text: str) -> list[str]:
    """Numbers from 1 on, or the word for as many as possible. Raises ``ValueError``."""
    counts = text.split(",")
    if not all(count == MOST or (count.isdecimal() and int(count) >= 1) for count in counts):
        raise ValueError(text)
    return counts


def compare(folder: Path, workers: list[str], only: list[str] | None, decode_workers: Sequence[int]) -> Iterator[Line]:
    """Compare everything a folder records, or of its roll-outs some.

    Raises:
        ValueError: its files tell no kind, or it has no roll-out of such a name.
    """
    kinds: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
        "rollout.safetensors": lambda config: compare_rollouts(folder, config, workers, only),
        "codec.safetensors": lambda config: compare_vae(folder, config, decode_workers),
        "encoding.safetensors": lambda config: compare_text(folder, config),
    }
    found = [run for name, run in kinds.items() if (folder / name).is_file()]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} of {', '.join(kinds)}; needed one")
    with torch.inference_mode():
        yield from found[0](json.loads((folder / "config.json").read_text()))


if __name__ == "__main__":
    main()
