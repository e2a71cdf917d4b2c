"""Fetching what tests need never stops an installation: where it cannot be had, that is said."""

import subprocess
import sys
from pathlib import Path

from tests.deploy.real_prometheus import ROOT


def fetch(folder: Path, path: Path) -> list[str]:
    """Returns the lines it says, with only the programs in ``path`` at hand."""
    command = [sys.executable, str(ROOT / "deploy" / "get_test_tools.py"), str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": str(path)})
    assert answer.stderr == ""
    return answer.stdout.splitlines()


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_another_system_is_told_and_not_stopped(tmp_path: Path) -> None:
    said = fetch(tmp_path / "tools", tmp_path)
    assert [line.split(": ")[1] for line in said] == ["Prometheus", "players", "hls.js", "axe-core"]
    assert "not a Debian system" in said[0] and "not a Debian system" in said[1]
    assert "there is no npm" in said[2] and "there is no npm" in said[3]


def test_a_package_that_cannot_be_had_is_told_with_the_reason(tmp_path: Path) -> None:
    program(tmp_path / "apt-get", "echo 'W: slow' >&2; echo 'E: no route to the mirror' >&2; exit 100")
    program(tmp_path / "dpkg-deb", "exit 1")
    program(tmp_path / "npm", "echo 'npm error no route to the registry' >&2; exit 1")
    for name in ("chromium", "ffmpeg", "mpv", "cvlc"):  # else root would be told to install them
        program(tmp_path / name, "exit 0")
    said = fetch(tmp_path / "tools", tmp_path)
    assert "E: no route to the mirror" in said[0] and "skipped" in said[0]
    assert "npm error no route to the registry" in said[-1] and "skipped" in said[-1]
    assert not (tmp_path / "tools").exists()


def test_a_package_that_was_exchanged_is_not_unpacked(tmp_path: Path) -> None:
    program(tmp_path / "npm", "for name in hls.js-1.7.4 axe-core-4.14.1; do echo bad >$name.tgz; done")
    said = fetch(tmp_path / "tools", tmp_path)
    assert all("is not what it was" in line and "skipped" in line for line in said[2:]) and len(said) == 4
    assert not (tmp_path / "tools").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    names = ("prometheus", "promtool", "hls-1.7.4.js", "axe-4.14.1.js", "chromium", "ffmpeg", "mpv", "cvlc", "npm")
    for name in names:
        program(tmp_path / name, "exit 0")
    assert [line for line in fetch(tmp_path, tmp_path) if "players" not in line] == []
