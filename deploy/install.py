"""Installs the server into the Python that runs this file, with the build of torch that suits the machine.

    .venv/bin/python deploy/install.py [--extras dev] [--torch cpu]

A machine with an NVIDIA GPU gets torch as pip finds it. Any other gets the CPU build: what pip finds if that is one,
else the CPU build that uv knows how to find; it saves gigabytes of CUDA libraries. Standard library only.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PIP = "pip==26.3"
UV = "uv==0.13.9"
_QUIET = {"PYTHONWARNINGS": "ignore:Editable installation"}
"""Without it setuptools tells in a box of eight lines that an editable installation is one."""
_CUDA_PACKAGE = re.compile(r"(nvidia|cuda|triton)\b", re.IGNORECASE)
_CONDITION = re.compile(r"""(platform_system|platform_machine|sys_platform|extra)\s*==\s*["']([^"']*)["']""")


class Installer(StrEnum):
    """Who installs torch."""

    PIP = "pip"
    UV_CPU = "uv, CPU build"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", metavar="A,B", default="", help="optional dependencies of pyproject.toml: gpu, dev")
    parser.add_argument(
        "--torch", choices=("auto", "cpu", "cuda"), default="auto", help="its build; auto: what suits this machine"
    )
    options = parser.parse_args()
    wants_cuda = has_nvidia_gpu() if options.torch == "auto" else options.torch == "cuda"
    try:
        install(options.extras, wants_cuda=wants_cuda)
    except subprocess.CalledProcessError as error:
        sys.exit(f"install: failed with status {error.returncode}: {' '.join(map(str, error.cmd))}")


def install(extras: str, *, wants_cuda: bool) -> None:
    """Install torch, then the server with ``extras``."""
    torch = pinned("torch", CONSTRAINTS.read_text())
    if is_installed(torch):
        _tell(f"{torch} is installed")
    else:
        _pip("install", "--quiet", PIP)
        _install_torch(torch, wants_cuda)
    _tell(f"the server{f' with {extras}' if extras else ''} and its dependencies")
    # One after the other: an older server had the command that the client brings, and takes it along when it goes.
    for ours in (f"{ROOT}[{extras}]" if extras else str(ROOT), str(ROOT / "clients")):
        _pip("install", "--quiet", "-c", CONSTRAINTS, "-e", ours)
    _tell("done")


def has_nvidia_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that works."""
    if Path("/dev/nvidia0").exists():
        return True
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool], capture_output=True, check=False).returncode == 0


def choose(*, wants_cuda: bool, report: dict[str, Any], system: str, machine: str) -> Installer:
    """Say who installs torch. ``report`` is pip's answer to what it would install."""
    if wants_cuda:
        return Installer.PIP
    requirements = [item for package in report["install"] for item in package["metadata"].get("requires_dist", ())]
    return Installer.UV_CPU if needs_cuda(requirements, system, machine) else Installer.PIP


def needs_cuda(requirements: Iterable[str], system: str, machine: str) -> bool:
    """Whether one of a wheel's requirements brings CUDA libraries on this platform."""
    return any(_CUDA_PACKAGE.match(item) and _applies(item, system, machine) for item in requirements)


def pinned(name: str, constraints: str) -> str:
    """Find the line that pins package ``name``."""
    for line in constraints.splitlines():
        if line.partition("==")[0] == name:
            return line
    raise LookupError(f"{CONSTRAINTS.name} does not pin {name}")


def is_installed(requirement: str) -> bool:
    """Whether ``name==version`` is installed, in whatever build."""
    name, _, wanted = requirement.partition("==")
    try:
        return version(name).partition("+")[0] == wanted
    except PackageNotFoundError:
        return False


def _install_torch(torch: str, wants_cuda: bool) -> None:
    report = {"install": []} if wants_cuda else _plan(torch)
    installer = choose(wants_cuda=wants_cuda, report=report, system=platform.system(), machine=platform.machine())
    _tell(
        f"{torch} ({'CUDA' if wants_cuda else 'CPU'} build, by {installer.partition(',')[0]}); this is the large part"
    )
    if installer is Installer.PIP:
        _pip("install", "-c", CONSTRAINTS, torch)
        return
    _pip("install", "--quiet", UV)
    uv = (sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable)
    _run(*uv, "-c", CONSTRAINTS, "--torch-backend", "cpu", torch)


def _plan(requirement: str) -> dict[str, Any]:
    """Ask pip what it would install, without its dependencies; nothing is changed."""
    options = ("--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--report", "-")
    command = (sys.executable, "-m", "pip", "install", *options, requirement)
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    plan: dict[str, Any] = json.loads(answer)
    return plan


def _applies(requirement: str, system: str, machine: str) -> bool:
    """Whether the marker of a requirement holds here; extras are never asked for."""
    here = {"platform_system": system, "platform_machine": machine, "sys_platform": system.lower(), "extra": None}
    marker = requirement.partition(";")[2]
    return all(here[key] == value for key, value in _CONDITION.findall(marker))


def _pip(*arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", *arguments)


def _run(*command: str | Path) -> None:
    subprocess.run(_words(command), env={**os.environ, **_QUIET}, check=True)


def _words(command: Sequence[str | Path]) -> list[str]:
    return [str(word) for word in command]


def _tell(text: str) -> None:
    print(f"install: {text}", flush=True)


if __name__ == "__main__":
    main()
