"""What the README tells people to type exists."""

import re
from pathlib import Path

import pytest

import server.settings
from hiar_client import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL_LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def commands(start: str) -> list[str]:
    return [line.split(" #")[0] for line in SHELL_LINES if re.match(rf"{start}\b", line)]


def flags(line: str) -> list[str]:
    return re.findall(r"(?<=\s)--?[a-z][a-z-]*", line.partition("|")[0])


def help_of(parse: object, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert callable(parse)
    with pytest.raises(SystemExit):
        parse(arguments)
    return capsys.readouterr().out


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in commands("make")}
    assert {"demo", "test", "install"} <= named <= targets


def test_server_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(server.settings.settings_from_process, ["--help"], capsys)
    lines = [line for line in commands("hiar-server") if line]
    assert lines
    assert all(re.search(rf"{flag}\b", text) for line in lines for flag in flags(line))


def test_client_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = commands("hiar (generate|status|models)")
    assert lines
    for line in lines:
        text = help_of(cli.main, [line.split()[1], "--help"], capsys)
        assert all(re.search(rf"{flag}\b", text) for flag in flags(line))


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    paths = re.findall(r"`((?:engine|models|docs)/[\w./]+)`", README)
    assert all((ROOT / path).exists() for path in [*links, *paths])


def test_files_of_the_image_exist() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert all((ROOT / name).exists() for line in copied for name in line.split())
