"""A front that starts its first worker goes on answering, and says why when the script at hand cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]

SCRIPT = """
import asyncio
from tests.front.making import config
from engine.fleet.fork_server import prepare_workers

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


def test_a_script_that_starts_an_engine_whenever_it_is_imported_is_told_how_to_begin(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 1
    assert "StartError: the first worker process ended with exit code 1" in done.stderr
    assert 'under if __name__ == "__main__"' in done.stderr
