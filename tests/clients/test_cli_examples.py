"""Examples in the help of ``hiar`` and in ``docs/cli.md`` run when they are pasted into a shell; completion works."""

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiar_client.cli.command import parser
from hiar_client.cli.completion import script_of
from tests.clients.patient import serving
from tests.clients.running import ROOT, Shell, examples
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer

DOCUMENT = (ROOT / "docs" / "cli.md").read_text()


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia), max_per_client=1000) as server:
        yield server


def parsers(one: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield one
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


@pytest.fixture
def bash(live: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIAR_URL", live.url)
    return Shell(live, tmp_path, capfd)


@pytest.mark.slow
def test_examples_run_when_they_are_pasted(bash: Shell, tmp_path: Path) -> None:
    scripts = dict.fromkeys(tuple(examples(one.format_help())) for one in parsers(parser()))
    assert len(scripts) > 15 and () not in scripts
    for line in (line for script in scripts for line in script):
        bash.paste(line)
    names = {path.name for path in tmp_path.iterdir()}
    long_name = "a-large-red-circle-drifts-to-the-right-over-a-night-sky.mp4"
    assert {long_name, "star.mp4", "change.mp4", "star.webp", "bench.json", "bench.svg", "played"} <= names


@pytest.mark.slow
def test_commands_of_the_document_run(bash: Shell) -> None:
    scripts = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(scripts) > 3
    for line in "".join(scripts).splitlines():
        bash.paste(line)


def test_the_document_names_every_command() -> None:
    names = {one.prog for one in parsers(parser())} - {"hiar", "hiar videos list"}
    assert [name for name in names if f"`{name}" not in DOCUMENT and f"{name} " not in DOCUMENT] == []


COMPLETE = """\
{script}
complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _hiar; echo "${{COMPREPLY[*]}}"; }}
"""


def complete(folder: Path, *words: str) -> list[str]:
    script = COMPLETE.format(script=script_of("bash", parser())) + 'complete_words "$@"\n'
    command = ["bash", "--norc", "-c", script, "bash", "hiar", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_words(tmp_path: Path) -> None:
    (tmp_path / "picture.png").touch()
    assert complete(tmp_path, "gen") == ["generate"]
    assert set(complete(tmp_path, "videos", "re")) == {"resume", "remix"}
    assert complete(tmp_path, "generate", "x", "--se") == ["--seconds", "--seed"]
    assert complete(tmp_path, "generate", "--pace", "") == ["realtime", "fast"]
    assert complete(tmp_path, "videos", "download", "ID", "--variant", "th") == ["thumbnail"]
    assert complete(tmp_path, "generate", "--image", "pic") == ["picture.png"]
    assert complete(tmp_path, "generate", "--seconds", "") == []
    assert complete(tmp_path, "completion", "") == ["bash", "zsh", "fish", "-h", "--help"]
    assert "--version" in complete(tmp_path, "--")


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_shells_take_the_script(shell_name: str) -> None:
    if shutil.which(shell_name) is None:
        pytest.skip(f"needs {shell_name}: apt install {shell_name}")
    script = script_of(shell_name, parser())
    subprocess.run([shell_name, "-n"], input=script, text=True, check=True, capture_output=True, timeout=20)


def test_zsh_completes_words(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh: apt install zsh")
    head = "compadd() { shift; print -l -- $@ }\ncompdef() { : }\n_files() { print FILES }\n"
    tries = 'words=(hiar videos re) CURRENT=3; _hiar\nwords=(hiar generate --image "") CURRENT=4; _hiar\n'
    script = head + script_of("zsh", parser()) + tries
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    said = done.stdout.split()
    assert {"resume", "remix", "download", "FILES"} <= set(said) and done.stderr == ""


def test_fish_completes_words(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish: apt install fish")
    script = script_of("fish", parser()) + "complete -C 'hiar videos re'\ncomplete -C 'hiar generate --pace '\n"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    said = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert {"resume", "remix", "realtime", "fast"} <= set(said)
