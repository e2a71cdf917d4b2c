"""Puts Debian's ``prometheus`` and ``promtool`` into a folder, without installing a service or needing root.

    .venv/bin/python deploy/get_prometheus.py .venv/tools

The tests of dashboards and rules use them and are skipped without them; so where there is no apt, or no package can be
had, this says so and is no failure. Standard library only.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ("prometheus", "promtool")


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: get_prometheus.py FOLDER")
    folder = Path(sys.argv[1])
    if all((folder / name).is_file() for name in PROGRAMS):
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        _tell("not a Debian system: tests that need Prometheus will be skipped, unless it is on the PATH")
        return
    try:
        fetch(folder)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or [f"status {error.returncode}"]
        _tell(f"no Debian package ({reason[0]}): tests that need Prometheus will be skipped")


def fetch(folder: Path) -> None:
    """Download and unpack the package. Raises ``CalledProcessError`` when there is none to be had."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        try:
            package = _download(scratch)
        except subprocess.CalledProcessError:
            package = _download_with_own_lists(scratch)
        _run(scratch, "dpkg-deb", "-x", str(package), "tree")
        folder.mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            shutil.copy2(scratch / "tree" / "usr" / "bin" / program, folder / program)
    _tell(f"{package.name.removesuffix('.deb')} is in {folder}")


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


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def _tell(text: str) -> None:
    print(f"get_prometheus: {text}", flush=True)


if __name__ == "__main__":
    main()
