"""An engine over two hosts, each a network namespace of this machine."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.in_time

ROOT = Path(__file__).parents[2]
UNSHARE = ("unshare", "-Urnm")
PROBE = "unshare --net sleep 1 & sleep 0.3; ip link add v0 type veth peer name v1 netns $! && nsenter -t $! --net true"
LIMIT_S = 300


def obstacle() -> str | None:
    """Why namespaces cannot be made here; None if they can."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    probe = subprocess.run([*UNSHARE, "sh", "-c", PROBE], capture_output=True, text=True, check=False)
    return f"namespaces are not permitted here: {probe.stderr.strip()}" if probe.returncode else None


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 30)
def test_two_nodes_make_one_engine_and_a_lost_one_comes_back() -> None:
    if reason := obstacle():
        pytest.skip(reason)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIAR_")}
    environment["HIAR_DATA"] = "memory"
    command = [*UNSHARE, sys.executable, "-m", "tests.server.two_nodes_body"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as body:
        try:
            output, _ = body.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not done after {LIMIT_S} s")
        finally:
            if body.poll() is None:
                os.killpg(body.pid, signal.SIGKILL)
    assert body.returncode == 0, output.decode()
