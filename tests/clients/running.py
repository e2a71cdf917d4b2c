"""The ``hiar`` command as a process, and what the examples in its help are pasted into."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.server.live_server import LiveServer

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from hiar_client.cli import main; main()"]


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


def shell(live: LiveServer, script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script, to its first error, with ``hiar`` on its path and a player that is closed after a little."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, body in (("hiar", f'exec {shlex.join(COMMAND)} "$@"'), ("ffplay", "exec head -c 2000 >played")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    known = environment(live)
    variables = {**known, "PATH": f"{programs}{os.pathsep}{known['PATH']}", "HOME": str(folder)}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


def examples(help_text: str) -> str:
    """The indented lines below "examples:"."""
    found = re.search(r"^examples:\n((?:  .*\n)+)", help_text, re.MULTILINE)
    return "" if found is None else found[1]
