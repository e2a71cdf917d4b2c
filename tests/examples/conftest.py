"""The examples run with the client's wheel, in an environment that knows nothing of this checkout."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


@dataclass(frozen=True)
class Installed:
    """Where the client is installed."""

    python: Path
    wheel: Path


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(
        ROOT / "clients", folder / "clients", ignore=shutil.ignore_patterns("*.egg-info", "build", "player")
    )
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder / "clients", check=True, capture_output=True)
    (wheel,) = (folder / "clients" / "dist").glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(packages)
    # What it needs lies with us; a path alone does not bring our own checkout along, as its own .pth files do.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(python=folder / "venv" / "bin" / "python", wheel=wheel)


@pytest.fixture(scope="module")
def painted() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia)) as server:
        yield server
