"""The server keeps what its document says, as schemathesis judges: good and bad requests, with keys and without.

CONTRACT_EXAMPLES=200 pytest tests/server/test_contract.py --timeout 3600
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import EngineOptions
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.keyed_server import ALICE, line
from tests.server.live_server import LiveServer, serving
from tests.server.test_main import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.in_turn]

FEW = 3
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", FEW))
"""Of each operation."""
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "401", "403", "404", "409", "410", "416", "425", "429"]

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx"]
"""
"""A good request may come too late, or too early, for what it names."""
OPTIONS = {"engine": EngineOptions(max_videos=4, max_queue=500), "max_seconds": 2.0, "max_per_client": 1000}
"""All videos end soon, so that every stream does."""


@pytest.fixture(params=["without keys", "with keys"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveServer]:
    keys = None
    if request.param == "with keys":
        keys = tmp_path / "keys"
        keys.write_text(line("alice", ALICE, "videos=1000"))
    with serving(Behaviour(media=PaintedMedia), keys=keys, **OPTIONS) as live:
        yield live


def test_the_document_is_kept(server: LiveServer, tmp_path: Path) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    flags = ["--max-examples", str(EXAMPLES), "--seed", "1", "--request-timeout", "20"]
    key = ["--header", f"Authorization: Bearer {ALICE}"] if server.settings.keys is not None else []
    phases = "examples,coverage,fuzzing" + (",stateful" if key or EXAMPLES > FEW else "")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    answer = subprocess.run(
        [*command, f"{server.url}/openapi.json", "--phases", phases, *flags, *key],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.server.contract_hooks", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100 + 20 * EXAMPLES,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
