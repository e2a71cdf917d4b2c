"""The command line of ``benchmarks.true_shapes``."""

import argparse
import sys
import time
from pathlib import Path

import benchmarks.true_shapes
from benchmarks.true_shapes.folder import LAYOUTS, apparent_bytes, disk_bytes, make_folder, shown
from benchmarks.true_shapes.sizes import SIZES

EXAMPLES = """\
examples:
  python -m benchmarks.true_shapes build/hiar                        zeros: seconds, and a few MB of the disk
  python -m benchmarks.true_shapes build/hiar --random               random numbers: 6 GB of the disk
  python -m benchmarks.true_shapes build/hiar --layout diffusers     the same as folders of safetensors
  python -m benchmarks.true_shapes build/hiar --extra                hiar.pt with critic and optimizers, 40 GB long
  python -m benchmarks.true_shapes build/micro --size micro --random the same files with tiny widths
  hiar-server --model build/hiar --devices cuda:0                    serve it
"""


def main() -> None:
    """Make a folder and say what it takes."""
    arguments = _arguments()
    began_s = time.monotonic()
    try:
        make_folder(
            arguments.folder,
            layout=arguments.layout,
            size=arguments.size,
            random=arguments.random,
            random_text=arguments.random_text,
            extra=arguments.extra,
            say=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"true_shapes: {error}")
    length, taken = shown(apparent_bytes(arguments.folder)), shown(disk_bytes(arguments.folder))
    took_s = time.monotonic() - began_s
    print(f"{arguments.folder}: {length} in length, {taken} on the disk, made in {took_s:.1f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.true_shapes",
        description=benchmarks.true_shapes.__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="made if absent; if not, empty or made by this command before")
    parser.add_argument("--layout", choices=LAYOUTS, default="original", help="of the files (default: original)")
    parser.add_argument("--size", choices=SIZES, default="real", help="widths of the networks (default: real)")
    parser.add_argument("--random", action="store_true", help="random numbers in transformer and VAE, not zeros")
    parser.add_argument("--random-text", action="store_true", help="random numbers in the text encoder too")
    parser.add_argument("--extra", action="store_true", help="add critic and optimizers to hiar.pt")
    return parser.parse_args()


if __name__ == "__main__":
    main()
