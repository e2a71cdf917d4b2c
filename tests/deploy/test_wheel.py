"""The wheels of the server and of the client, each installed where nothing else of ours can be imported."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
import zlib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import av
import httpx
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "server", "engine", "kernels", "clients", "models")
IN_WHEEL = {
    "server": "server",
    "engine": "engine",
    "kernels": "kernels",
    "models/tiny": "server/models/tiny",
    "clients/player": "server/clients/player",
}
"""Folder of the checkout -> where all its files are in the server's wheel, which has no others."""
SERVER_BYTES_MAX, CLIENT_BYTES_MAX = 15_000_000, 200_000
BUILD_SDIST = "from setuptools import build_meta; build_meta.build_sdist('dist')"
OFFLINE = ("--quiet", "--no-deps", "--no-index")
SIZE = "64x64"
ANSWER_S = 60.0

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def environment(home: Path) -> dict[str, str]:
    """Nothing that tells where the checkout is, and no setting of the server but where its jobs lie."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "HIAR_DATA": "memory"}


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By distribution: the client's from its folder, the server's from its sdist, as ``python -m build`` does it."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    run(sys.executable, "-c", BUILD_SDIST, cwd=folder)
    (sdist,) = (folder / "dist").iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "dist", filter="data")
    source = folder / "dist" / sdist.name.removesuffix(".tar.gz")
    stale = source / "build" / "lib" / "server" / "of_an_earlier_build.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip("wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", "out", source, folder / "clients", cwd=folder)
    return {path.name.partition("-")[0]: path for path in (folder / "out").iterdir()}


def installed(wheel: Path, folder: Path) -> Path:
    """The packages' folder of a new environment that holds this wheel alone."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", *OFFLINE, "--no-compile", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    return packages


@pytest.fixture(scope="module")
def server(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the installed server on the model that ships, started from an empty folder."""
    folder, empty = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("empty")
    packages = installed(wheels["hiar_server"], folder)
    # As a path this brings packages; the finders of an editable installation, which lie there, stay out.
    (packages / "dependencies.pth").write_text(f"{SITE}\n")
    command = [folder / "bin" / "hiar-server", "--port", "0", "--sizes", SIZE, "--max-videos", "1"]
    with subprocess.Popen(command, cwd=empty, env=environment(empty), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield address_when_ready(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(ANSWER_S) == 0
        finally:
            process.kill()
    assert not list(empty.iterdir())
    assert not (folder / "bin" / "hiar").exists()


def address_when_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "ready after" in line and (found := re.search(r"http://[0-9.:]+", line)):
            return found[0]
    raise AssertionError("".join(said))


@pytest.fixture(scope="module")
def hiar(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's command, in an environment with httpx, what that needs, and nothing else."""
    folder = tmp_path_factory.mktemp("client")
    packages = installed(wheels["hiar_client"], folder)
    for name in needed_by("httpx"):
        for top in {Path(file).parts[0] for file in distribution(name).files or () if ".." not in Path(file).parts}:
            (packages / top).symlink_to(SITE / top)
    return folder / "bin" / "hiar"


def needed_by(name: str) -> set[str]:
    """The distribution and all that it requires without extras."""
    wanted = {Requirement(text) for text in distribution(name).requires or ()}
    direct = {item.name for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})}
    return {name}.union(*map(needed_by, direct))


def held(wheel: Path) -> dict[str, int]:
    """Checksum of each file of a wheel, its own records aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.CRC for item in archive.infolist() if ".dist-info/" not in item.filename}


def checksums(folder: Path, place: str) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {f"{place}/{path.relative_to(folder)}": zlib.crc32(path.read_bytes()) for path in files}


def version_of(file: str) -> str:
    return str(tomllib.loads((ROOT / file).read_text())["project"]["version"])


def test_the_version_and_the_licence_are_one() -> None:
    assert version_of("pyproject.toml") == version_of("clients/pyproject.toml")
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "clients" / "LICENSE").read_bytes()


def test_the_servers_wheel_holds_its_folders_and_nothing_else(wheels: dict[str, Path]) -> None:
    wanted = {
        name: sum_ for folder, place in IN_WHEEL.items() for name, sum_ in checksums(ROOT / folder, place).items()
    }
    assert held(wheels["hiar_server"]) == wanted
    assert wheels["hiar_server"].stat().st_size < SERVER_BYTES_MAX


def test_the_clients_wheel_holds_its_package_and_nothing_else(wheels: dict[str, Path]) -> None:
    assert held(wheels["hiar_client"]) == checksums(ROOT / "clients" / "hiar_client", "hiar_client")
    assert wheels["hiar_client"].stat().st_size < CLIENT_BYTES_MAX


def test_the_installed_server_serves_its_pages(server: str) -> None:
    with httpx.Client(base_url=server, trust_env=False) as http:
        assert http.get("/docs").is_success
        assert http.get("/openapi.json").json()["info"]["version"] == version_of("pyproject.toml")
        for path in (ROOT / "clients" / "player").iterdir():
            name = "" if path.name == "index.html" else path.name
            assert http.get(f"/{name}").content == path.read_bytes()


def test_the_installed_server_makes_a_video(server: str) -> None:
    body = {"prompt": "a red star", "seconds": 0.5, "pace": "fast"}
    answer = httpx.post(f"{server}/v1/generate", json=body, timeout=ANSWER_S, trust_env=False)
    assert num_pictures(answer.raise_for_status().content) == 8


def test_the_client_needs_httpx_alone(server: str, hiar: Path, tmp_path: Path) -> None:
    run(hiar, "generate", "a red star", "--seconds", "0.5", "-o", "star.mp4", "--url", server, cwd=tmp_path)
    assert num_pictures((tmp_path / "star.mp4").read_bytes()) == 8


def num_pictures(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as video:
        return sum(1 for _ in video.decode(video=0))
