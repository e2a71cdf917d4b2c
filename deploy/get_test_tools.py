"""Gets what tests need and pip has not: Prometheus, players, PostgreSQL's programs, hls.js.

    .venv/bin/python deploy/get_test_tools.py .venv/tools

Programs of Debian are installed where this runs as root, but Prometheus, which would bring a service, is only
unpacked into the folder; so is hls.js. PostgreSQL gets no cluster and nothing is started. Tests are skipped without
what they need; so where something cannot be had, this says so and is no failure. Standard library only.
"""

import os
import shutil
import subprocess
import sys
import tempfile
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
"""A program that tells whether it is there, and Debian's packages of it. npm is what fetches hls.js."""
HLS_JS = "1.7.4"
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
    for what, get in (("Prometheus", get_prometheus), ("players", install_packages), ("hls.js", get_hls_js)):
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


def get_hls_js(folder: Path) -> None:
    """Put ``hls.js`` into the folder. Raises ``NotHad``."""
    if (folder / f"hls-{HLS_JS}.js").is_file():
        return
    if shutil.which("npm") is None:
        raise NotHad("there is no npm")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _run(scratch, "npm", "pack", "--silent", f"hls.js@{HLS_JS}")
        shutil.unpack_archive(scratch / f"hls.js-{HLS_JS}.tgz", scratch)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(scratch / "package" / "dist" / "hls.min.js", folder / f"hls-{HLS_JS}.js")
    _tell(f"hls.js {HLS_JS} is in {folder}")


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
