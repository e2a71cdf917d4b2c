"""A front that starts its first worker goes on answering."""

import subprocess
import sys

SCRIPT = """
import asyncio
from tests.front.making import config
from engine.front.link import prepare_workers

async def main():
    preparing, num_turns = asyncio.create_task(prepare_workers(config())), 0
    while not preparing.done():
        await asyncio.sleep(0.01)
        num_turns += 1
    await preparing
    print(num_turns)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_event_loop_turns_while_the_first_process_imports_its_modules() -> None:
    """In a process of its own: this one may have forked workers already."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 10, "importing torch alone takes longer than ten turns"
