"""Fetching Prometheus never stops an installation: where it cannot be had, that is said."""

import subprocess
import sys
from pathlib import Path

from tests.deploy.real_prometheus import ROOT


def fetch(folder: Path, path: Path) -> str:
    """Returns what it says, with only the programs in ``path`` at hand."""
    command = [sys.executable, str(ROOT / "deploy" / "get_prometheus.py"), str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": str(path)})
    assert answer.stderr == ""
    return answer.stdout


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_another_system_is_told_and_not_stopped(tmp_path: Path) -> None:
    assert "not a Debian system" in fetch(tmp_path / "tools", tmp_path)


def test_a_package_that_cannot_be_had_is_told_with_the_reason(tmp_path: Path) -> None:
    program(tmp_path / "apt-get", "echo 'W: slow' >&2; echo 'E: no route to the mirror' >&2; exit 100")
    program(tmp_path / "dpkg-deb", "exit 1")
    said = fetch(tmp_path / "tools", tmp_path)
    assert "E: no route to the mirror" in said and "skipped" in said
    assert not (tmp_path / "tools").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    for name in ("prometheus", "promtool"):
        program(tmp_path / name, "exit 0")
    assert fetch(tmp_path, tmp_path) == ""
