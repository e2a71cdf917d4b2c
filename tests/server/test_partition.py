"""A network that is gone without a word, in namespaces of its own."""

import subprocess
import sys

import pytest

from tests.server.test_main import ENVIRONMENT, ROOT
from tests.server.test_two_nodes import UNSHARE, obstacle

pytestmark = pytest.mark.in_time


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_viewer_whose_network_is_gone_frees_its_place_within_20_s() -> None:
    if reason := obstacle():
        pytest.skip(reason)
    command = [*UNSHARE, sys.executable, "-m", "tests.server.partition_body"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "freed after" in done.stdout
