"""The ``hiar`` command as a process, and lines of shell that use it, as one pastes them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from hiar_client.cli.command import run
from tests.server.live_server import LiveServer

ROOT = Path(__file__).parents[2]
_PROGRAM = "import sys; sys.modules.update(rich=None, click=None); from hiar_client.cli import main; main()"
COMMAND = [sys.executable, "-c", _PROGRAM]
"""As it is where only what the client needs is installed."""
_KEPT = re.compile(r"(\w+)=\$\((.*)\)\s*")


def environment(live: LiveServer) -> dict[str, str]:
    """With the server's address, and without what this process was told of others."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HIAR_") and name != "CI"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "clients")])
    return {**mine, "HIAR_URL": live.url, "PYTHONPATH": paths, "COLUMNS": "120"}


def hiar(live: LiveServer, *arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    """Run it to its end."""
    done: subprocess.CompletedProcess[bytes] = subprocess.run(  # type: ignore[call-overload]
        [*COMMAND, *arguments], env=environment(live), capture_output=True, timeout=60, check=False, **options
    )
    return done


class Shell:
    """Takes lines in turn. Only those that need a shell get one: starting Python takes longer than all else."""

    def __init__(self, live: LiveServer, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """``folder`` is where this process is, and has its ``HIAR_URL``."""
        self._capfd = capfd
        self._kept: dict[str, str] = {}
        programs = folder / ".programs"
        programs.mkdir()
        for name, body in (("hiar", f'exec {shlex.join(COMMAND)} "$@"'), ("ffplay", "exec head -c 2000 >played")):
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        known = environment(live)
        self._environment = {**known, "PATH": f"{programs}{os.pathsep}{known['PATH']}", "HOME": str(folder)}

    def paste(self, line: str) -> None:
        """Run one line, which must succeed."""
        words = list(_words(line))
        kept = _KEPT.fullmatch(line.partition(" #")[0])
        if kept is not None:
            self._kept[kept[1]] = self._call(list(_words(kept[2]))).strip()
        elif words[0] == "hiar" and not any(re.fullmatch(r"[|<>&;()]+", word) for word in words):
            self._call(words)
        else:
            variables = {**self._environment, **self._kept}
            command = ["bash", "-euo", "pipefail", "-c", line]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"

    def _call(self, words: list[str]) -> str:
        assert words[0] == "hiar", words
        self._capfd.readouterr()
        status = run([Template(word).substitute(self._kept) for word in words[1:]])
        said = self._capfd.readouterr()
        assert status == 0, f"{words}\n{said.err}"
        return said.out


def examples(help_text: str) -> list[str]:
    """The indented lines below "examples:"."""
    found = re.search(r"^examples:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    return [] if found is None else [line.strip() for line in found[1].splitlines()]


def _words(line: str) -> shlex.shlex:
    """As a shell reads them, comments left out."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.commenters = "#"
    words.wordchars += "$@:,=%"
    return words
