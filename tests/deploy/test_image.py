"""The container image, as far as it can be checked without building it; ``make image-test`` builds and runs it."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from packaging.specifiers import SpecifierSet

from deploy import sbom
from deploy.image_build import pip_configuration
from deploy.image_test import SCRIPTS, USER
from server.settings import Settings, read_settings
from tests.server.live_server import serving

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IGNORE = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
LINES = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()


def given(instruction: str) -> list[str]:
    """What follows every ``instruction``."""
    return [line.partition(" ")[2].strip() for line in LINES if line.startswith(f"{instruction} ")]


def assigned(instruction: str) -> dict[str, str]:
    words = [word for text in given(instruction) for word in shlex.split(text)]
    return dict(word.split("=", 1) for word in words if "=" in word)


def copied() -> Iterator[str]:
    for text in given("COPY"):
        *words, _ = text.split()
        if not words[0].startswith("--from"):
            yield from words


def is_ignored(path: str) -> bool:
    """By the rules of a .dockerignore: the last line that matches the path or a folder above it decides."""
    places = [path, *(parent.as_posix() for parent in PurePosixPath(path).parents)]
    ignored = False
    for line in IGNORE:
        pattern = line.removeprefix("!")
        wanted = {pattern, pattern.removeprefix("**/")}
        if any(fnmatchcase(place, item) for place in places for item in wanted):
            ignored = not line.startswith("!")
    return ignored


def test_hadolint_finds_nothing() -> None:
    answer = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "")


def test_what_is_copied_is_there_and_sent() -> None:
    names = list(copied())
    assert {"server", "models/tiny", "constraints.txt"} <= set(names)
    assert all((ROOT / name).exists() for name in names)
    assert not [name for name in names if is_ignored(name)]


def test_nothing_else_is_sent() -> None:
    sent = {line.removeprefix("!") for line in IGNORE if line.startswith("!")}
    assert sent == set(copied())
    others = (".git/config", ".venv/bin/python", "tests/conftest.py", "models/other", "deploy/compose.yaml", ".env")
    assert all(map(is_ignored, (*others, "server/__pycache__/app.pyc", "hiar_server.egg-info/PKG-INFO")))


def test_every_base_is_chosen_in_one_place_and_pinned() -> None:
    assert {text.split()[0] for text in given("FROM")} == {"${BASE}"}
    assert re.fullmatch(r"docker\.io/library/python:[\d.]+-slim-bookworm@sha256:[0-9a-f]{64}", assigned("ARG")["BASE"])


def test_its_python_is_one_that_the_project_supports() -> None:
    tag = re.search(r"python:([\d.]+)", assigned("ARG")["BASE"])
    assert tag is not None and tag[1] in SpecifierSet(PROJECT["requires-python"])


def test_settings_it_makes_are_settings_of_the_server() -> None:
    ours = {name: value for name, value in assigned("ENV").items() if name.startswith("HIAR_")}
    assert ours == {"HIAR_HOST": "0.0.0.0", "HIAR_INSECURE": "true"}
    assert all(read_settings([], {name: value}) != read_settings([], {}) for name, value in ours.items())


def test_what_it_runs_are_scripts_of_the_project() -> None:
    (entrypoint,) = given("ENTRYPOINT")
    assert set(json.loads(entrypoint)) == {"hiar-server"}
    client = tomllib.loads((ROOT / "clients" / "pyproject.toml").read_text())["project"]
    assert set(SCRIPTS) == {*PROJECT["scripts"], *client["scripts"]}


def test_port_user_and_version() -> None:
    assert given("EXPOSE") == [str(Settings().port)]
    assert given("USER") == [USER]
    assert assigned("ARG")["VERSION"] == PROJECT["version"]
    assert given("STOPSIGNAL") == ["SIGTERM"]


def health(port: int) -> int:
    (text,) = given("HEALTHCHECK")
    program, *arguments = json.loads(text.partition("CMD ")[2])
    assert program == "python"
    environment = {"HIAR_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def test_health_is_that_of_the_server() -> None:
    with serving() as live:
        assert health(live.port) == 0
    assert health(live.port) == 1


def test_the_bill_lists_python_packages_and_debian_ones() -> None:
    listing = "libc6\t2.36-9+deb12u14\tamd64\ngcc-12\t12.2.0-14\tamd64\n"
    bill = sbom.bill(sbom.python_components(), sbom.debian_components(listing))
    names = {part["purl"].partition("@")[0]: part["version"] for part in bill["components"]}
    assert bill["metadata"]["component"]["name"] == PROJECT["name"]
    assert names["pkg:deb/debian/gcc-12"] == "12.2.0-14"
    assert f"httpx=={names['pkg:pypi/httpx']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert names["pkg:generic/python"] == ".".join(map(str, sys.version_info[:3]))
    assert len({part["bom-ref"] for part in bill["components"]}) == len(bill["components"])


def test_a_build_asks_the_same_package_index(tmp_path: Path) -> None:
    certificate, index = tmp_path / "ca.crt", tmp_path / "index" / "simple"
    certificate.touch()
    index.mkdir(parents=True)
    listing = f"""\
:env:.cert='{certificate}'
global.extra-index-url='\\nhttps://one.invalid/simple\\nfile://{index}'
user.find-links='/no/such/folder'
"""
    text, visible = pip_configuration(listing)
    assert text.splitlines() == [
        "[global]",
        f"cert = {certificate}",
        f"extra-index-url = https://one.invalid/simple file://{index}",
        "find-links = /no/such/folder",
    ]
    assert visible == [certificate, index.parent]
