"""Which build of torch gets installed, and that the pins are complete."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()

CPU_WHEEL = ["filelock", "typing-extensions>=4.10.0", "sympy>=1.13.3", 'optree>=0.13.0; extra == "optree"']
CUDA_WHEEL = [
    *CPU_WHEEL,
    'cuda-bindings<14,>=13.0.3; platform_system == "Linux"',
    'nvidia-cudnn-cu13==9.19.0.56; platform_system == "Linux"',
    'triton==3.6.0; platform_system == "Linux"',
]
OLDER_CUDA_WHEEL = [
    *CPU_WHEEL,
    'nvidia-cublas-cu12==12.8.4.1; platform_system == "Linux" and platform_machine == "x86_64"',
]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_install", ROOT / "deploy" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


install = load()


def report(requirements: list[str] | None) -> dict[str, object]:
    metadata = {"name": "torch", "version": "2.13.0"}
    return {"install": [{"metadata": metadata if requirements is None else metadata | {"requires_dist": requirements}}]}


@pytest.mark.parametrize(
    ("wheel", "system", "machine", "expected"),
    [
        (CPU_WHEEL, "Linux", "x86_64", install.Installer.PIP),
        (None, "Linux", "x86_64", install.Installer.PIP),
        (CUDA_WHEEL, "Linux", "x86_64", install.Installer.UV_CPU),
        (CUDA_WHEEL, "Darwin", "arm64", install.Installer.PIP),
        (OLDER_CUDA_WHEEL, "Linux", "x86_64", install.Installer.UV_CPU),
        (OLDER_CUDA_WHEEL, "Linux", "aarch64", install.Installer.PIP),
        ([*CPU_WHEEL, 'triton; extra == "compile"'], "Linux", "x86_64", install.Installer.PIP),
        ([*CPU_WHEEL, "nvidia-nccl"], "Linux", "x86_64", install.Installer.UV_CPU),
        ([*CPU_WHEEL, "tritonclient"], "Linux", "x86_64", install.Installer.PIP),
    ],
)
def test_without_gpu_no_cuda_library_is_installed(
    wheel: list[str] | None, system: str, machine: str, expected: object
) -> None:
    assert install.choose(wants_cuda=False, report=report(wheel), system=system, machine=machine) is expected


def test_with_gpu_pip_installs_what_it_finds() -> None:
    answer = install.choose(wants_cuda=True, report=report(CUDA_WHEEL), system="Linux", machine="x86_64")
    assert answer is install.Installer.PIP


def test_any_build_of_the_pinned_version_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "version", lambda name: "2.13.0+cpu")
    assert install.is_installed("torch==2.13.0")
    assert not install.is_installed("torch==2.13.1")


def test_a_missing_package_is_not_installed() -> None:
    assert not install.is_installed("no-such-package-of-ours==1.0")


def test_unpinned_package_is_named() -> None:
    with pytest.raises(LookupError, match="torch"):
        install.pinned("torch", "numpy==1.0")


def test_every_dependency_is_pinned_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pins = {normal(line.partition("==")[0]) for line in lines}
    assert {normal(re.match(r"[A-Za-z0-9._-]+", item)[0]) for item in wanted} <= pins  # type: ignore[index]


def test_build_backend_is_the_pinned_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == [install.pinned("setuptools", CONSTRAINTS)]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
