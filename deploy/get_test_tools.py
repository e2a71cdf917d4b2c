"""Gets what tests need and pip has not: Prometheus, players, PostgreSQL's programs, hls.js, axe-core.

    .venv/bin/python deploy/get_test_tools.py .venv/tools

Programs of Debian are installed where this runs as root, but Prometheus, which would bring a service, is only
unpacked into the folder; so are scripts for pages. PostgreSQL gets no cluster and nothing is started. Tests are skipped
without what they need; so where something cannot be had, this says so and is no failure. Standard library only.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PROMETHEUS = ("prometheus", "promtool")
PACKAGES = {
    "chromium": "chromium",
    "ffmpeg": "ffmpeg",
    "mpv": "mpv",
    "cvlc": "vlc-bin vlc-plugin-base",
    "npm": "npm",
    "/usr/lib/postgresql/15/bin/initdb": "postgresql",
}
"""A program that tells whether it is there, and Debian's packages of it. npm is what fetches scripts."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script of npm, which pages of tests load from the folder."""

    package: str
    version: str
    sha512: str
    """Of the package, in base64, as npm tells it."""
    path: str
    """In the package."""
    name: str
    """Of its file in the folder, without version."""


SCRIPTS = (
    Script(
        package="hls.js",
        version="1.7.4",
        sha512="3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQeNGyjC8U62+bruqW/Tpm+tg==",
        path="dist/hls.min.js",
        name="hls",
    ),
    Script(
        package="axe-core",
        version="4.14.1",
        sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        path="axe.min.js",
        name="axe",
    ),
)
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/none.conf")
"""Where Debian's PostgreSQL is told that an installation makes no cluster."""
SKIPPED = "tests that need it will be skipped"


class NotHad(Exception):
    """Something cannot be had, for this reason."""


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: get_test_tools.py FOLDER")
    folder = Path(sys.argv[1])
    tools: dict[str, Callable[[Path], None]] = {"Prometheus": get_prometheus, "players": install_packages}
    tools |= {script.package: partial(get_script, script) for script in SCRIPTS}
    for what, get in tools.items():
        try:
            get(folder)
        except NotHad as error:
            _tell(f"{what}: {error}: {SKIPPED}")


def get_prometheus(folder: Path) -> None:
    """Download and unpack Debian's ``prometheus`` and ``promtool``. Raises ``NotHad``."""
    if all((folder / name).is_file() for name in PROMETHEUS):
        return
    _require_debian("dpkg-deb")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        try:
            package = _download(scratch)
        except NotHad:
            package = _download_with_own_lists(scratch)
        _run(scratch, "dpkg-deb", "-x", str(package), "tree")
        folder.mkdir(parents=True, exist_ok=True)
        for program in PROMETHEUS:
            shutil.copy2(scratch / "tree" / "usr" / "bin" / program, folder / program)
    _tell(f"{package.name.removesuffix('.deb')} is in {folder}")


def install_packages(folder: Path) -> None:
    """Install those of ``PACKAGES`` that are missing. Raises ``NotHad``."""
    missing = [name for program, names in PACKAGES.items() if shutil.which(program) is None for name in names.split()]
    if not missing:
        return
    _require_debian("apt-get")
    if os.geteuid() != 0:
        raise NotHad(f"only root can install {' '.join(missing)}")
    _run(folder.parent, "apt-get", "-qq", "update")
    if not NO_CLUSTER.exists():
        NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        NO_CLUSTER.write_text("create_main_cluster = false\n")
    _run(folder.parent, "apt-get", "-qq", "install", "--no-install-recommends", *missing)
    _tell(f"installed {' '.join(missing)}")


def get_script(script: Script, folder: Path) -> None:
    """Put a script into the folder. Raises ``NotHad``."""
    file = folder / f"{script.name}-{script.version}.js"
    if file.is_file():
        return
    if shutil.which("npm") is None:
        raise NotHad("there is no npm")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _run(scratch, "npm", "pack", "--silent", f"{script.package}@{script.version}")
        package = scratch / f"{script.package}-{script.version}.tgz"
        if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != script.sha512:
            raise NotHad(f"{package.name} is not what it was when its hash was taken")
        shutil.unpack_archive(package, scratch)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(scratch / "package" / script.path, file)
    _tell(f"{script.package} {script.version} is in {folder}")


def _download(scratch: Path, *options: str) -> Path:
    _run(scratch, "apt-get", "-qq", *options, "download", "prometheus")
    return next(scratch.glob("prometheus_*.deb"))


def _download_with_own_lists(scratch: Path) -> Path:
    """The package lists of the machine are missing or old, and only root may renew them."""
    (scratch / "lists" / "partial").mkdir(parents=True)
    (scratch / "archives" / "partial").mkdir(parents=True)
    options = ("-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}", "-o", "Debug::NoLocking=1")
    _run(scratch, "apt-get", "-qq", *options, "update")
    return _download(scratch, *options)


def _require_debian(*programs: str) -> None:
    if any(shutil.which(program) is None for program in ("apt-get", *programs)):
        raise NotHad("this is not a Debian system and it is not on the PATH")


def _run(folder: Path, *command: str) -> None:
    """Raises ``NotHad`` with the last thing that the program complained of."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # in which no service is started
    answer = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, env=quiet)
    if answer.returncode != 0:
        raise NotHad((answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1])


def _tell(text: str) -> None:
    print(f"get_test_tools: {text}", flush=True)


if __name__ == "__main__":
    main()
