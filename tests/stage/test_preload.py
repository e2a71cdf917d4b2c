"""What a worker gets from the process that it is forked from."""

import subprocess
import sys

import pytest

FORKED = """
import gc
import os
import sys
import engine.stage.preload

imported = len(gc.get_objects())
pid = os.fork()
if pid == 0:
    os._exit(0 if gc.isenabled() and gc.get_freeze_count() >= imported > 100_000 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
def test_a_worker_collects_its_own_garbage_and_leaves_modules_alone() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], check=False).returncode == 0
