"""``python -m benchmarks.fuzz``: start a server, send it hostile requests, and tell what it did with them.

Exit status 1 if it answered with a 5xx that is not documented or with bytes that are no HTTP, if its log has a
traceback, if it no longer serves, or if its memory grew.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from benchmarks.fuzz.run import Outcome, fuzz


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument("--cases", type=int, default=10_000, help="how many requests (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same requests (default: 0)")
    parser.add_argument("--connections", type=int, default=8, help="at once (default: 8)")
    parser.add_argument(
        "--serve",
        default=f"{shlex.quote(sys.executable)} -c 'from server.main import main; main()'",
        help="command of the server, which gets --port (default: the small model)",
    )
    parser.add_argument(
        "--keys", action="store_true", help="serve with a key: half of the requests have it, others none or wrong ones"
    )
    told = parser.parse_args(arguments)
    outcome = fuzz(shlex.split(told.serve), told.cases, told.seed, told.connections, has_keys=told.keys)
    tell(outcome)
    return 1 if outcome.faults else 0


def tell(outcome: Outcome) -> None:
    """Print it."""
    print(json.dumps(outcome.statuses, sort_keys=True))
    print(
        f"{outcome.num_cases} cases in {outcome.took_s:.0f} s; memory {outcome.memory_mb[0]:.0f} MB after the first "
        f"half, {outcome.memory_mb[1]:.0f} MB at the end; log {outcome.log_bytes / 1e3:.0f} kB"
    )
    for fault in outcome.faults:
        print(f"FAULT: {fault}")


if __name__ == "__main__":
    sys.exit(main())
