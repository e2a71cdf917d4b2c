"""Who may import whom, what must load without torch or web packages, and that our top-level names are ours."""

import ast
import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("server", "engine", "kernels", "clients", "training", "benchmarks")
OURS = (*TOPS, "hiar_client")
LEAF_NAMES = ("config", "engine_config", "errors", "messages", "observe", "request", "trace", "weight_files")
PURE = {"engine.law", *(f"engine.{name}" for name in LEAF_NAMES)}
FOLDERS = {"engine.json_sections", "engine.student_keys", "engine.students", "engine.manifest"}
LEAVES = PURE - {"engine.law"} | FOLDERS
MODEL = {"engine.model", "kernels", *PURE}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(LEAVES, PURE),
    **dict.fromkeys(FOLDERS, FOLDERS | PURE),
    "engine.law": {"engine.law", "engine.config", "engine.engine_config"},
    "engine.machine": {"engine.errors"},
    "engine.forecast": {"engine.machine", *PURE},
    "kernels": {"kernels"},
    "engine.model": MODEL,
    "engine.oracle": MODEL,
    "engine.media": {"engine.media", *MODEL},
    "engine.stage": {"engine.stage", "engine.media", "engine.machine", *MODEL},
    "engine.front": {"engine.front", *LEAVES, "engine.law"},
    "engine.fleet": {"engine.fleet", "engine.forecast", "engine.machine", *LEAVES, "engine.law"},
    "engine": {"engine.engine", "engine.front", "engine.fleet", "engine.forecast", *LEAVES, "engine.law"},
    "server": {"server", "=engine"},
    "clients": {"clients", "hiar_client"},
    "hiar_client": {"hiar_client"},
    "training": {"training", "engine", "kernels"},
    "training.quality": {"training", "engine", "kernels", "benchmarks.gpu.machine"},
    "benchmarks": {"benchmarks", "engine", "kernels", "hiar_client", "training"},
}
"""Importer -> what of ours it may import; ``=engine`` is the facade without its submodules."""

WORKER_ENTRY = ("engine.fleet.local", "engine.stage.worker")
"""The one upward import: the fleet names what a new worker process runs, inside the function that runs there."""

NO_TORCH = (
    *sorted(LEAVES),
    "engine.engine",
    "engine.law.verdict",
    *(f"engine.fleet.{name}" for name in ("agent", "hello", "nodes", "wire")),
    "engine",
    "server.app",
    "server.main",
    "hiar_client.cli",
)
WITHOUT_WEB = (
    "engine.stage.worker",
    "engine.media.decode",
    "engine.model.dit",
    "engine.model.weights",
    "engine.oracle",
    "kernels",
    "kernels.attention.formula",
    "kernels.elementwise.formula",
    "kernels.yuv.formula",
    "benchmarks",
)
WEB_PACKAGES = ("fastapi", "uvicorn", "pydantic", "av")


def covers(rule: str, module: str) -> bool:
    if rule.startswith("="):
        return module == rule[1:]
    return module == rule or module.startswith(f"{rule}.")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[:2] == ("clients", "hiar_client") else parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = (ROOT / "clients" if covers("hiar_client", name) else ROOT).joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(source: str) -> set[str]:
    """Every module of ours that is imported anywhere in ``source``, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if name.split(".")[0] in OURS and is_module(name)}
            found |= modules if len(modules) == len(inside) else modules | {node.module}
    return {name for name in found if name.split(".")[0] in OURS}


def upward(importer: str, source: str) -> set[str]:
    rules = MAY_IMPORT[max((rule for rule in MAY_IMPORT if covers(rule, importer)), key=len)]
    return {name for name in imports(source) if not any(covers(rule, name) for rule in rules)}


def run_python(program: str) -> None:
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("path", [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))], ids=name_of)
def test_imports_point_down(path: Path) -> None:
    importer = name_of(path)
    found = {(importer, name) for name in upward(importer, path.read_text())}
    assert found <= {WORKER_ENTRY}


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("engine.config", "from engine.engine import Engine"),
        ("engine.law.schedule", "import engine.model.dit"),
        ("engine.engine", "def late():\n    from engine.stage.runner import Runner"),
        ("engine.model.dit", "from engine.stage.pages import PagePool"),
        ("kernels.yuv.formula", "from engine.config import VideoConfig"),
        ("server.app", "from engine.config import Manifest"),
        ("server.app", "from engine import config"),
        ("hiar_client.cli", "from server.settings import Settings"),
        ("hiar_client.cli", "import engine"),
        ("engine.oracle", "from server import app"),
        ("engine.front.desk", "from engine.fleet.group import WorkerGroup"),
        ("engine.fleet.group", "from engine.front.handle import VideoHandle"),
        ("engine.law.memory", "from engine.messages import Ticket"),
    ],
)
def test_an_upward_import_is_found(importer: str, source: str) -> None:
    assert upward(importer, source)


def test_kernels_do_not_import_each_other_in_a_circle() -> None:
    """Not even inside functions: a kernel then can be read without the formula that calls it."""
    files = {name_of(path): path.read_text() for path in sorted((ROOT / "kernels").rglob("*.py"))}
    graph = {name: {other for other in imports(source) if other in files} for name, source in files.items()}
    assert graph["kernels.fp8.triton"] == {"kernels.numbers"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", OURS)
def test_top_level_name_is_ours(name: str) -> None:
    spec = importlib.util.find_spec(name)
    folder = ROOT / "clients" if name == "hiar_client" else ROOT
    assert spec is not None and spec.origin == str(folder / name / "__init__.py")


@pytest.mark.slow
def test_the_api_process_does_not_import_torch() -> None:
    run_python(f"import sys, {', '.join(NO_TORCH)}; assert 'torch' not in sys.modules, 'torch was imported'")


@pytest.mark.slow
def test_the_process_that_workers_are_forked_from_touches_no_gpu() -> None:
    """A device that was opened before a fork cannot be used behind it."""
    run_python(
        "import torch\n"
        "def touched(*_): raise AssertionError('CUDA was touched')\n"
        "torch.cuda._lazy_init = torch.cuda.device_count = torch.cuda.is_available = touched\n"
        "torch.cuda._is_compiled = lambda: True\n"
        "for name in ('_cuda_init', '_cuda_getDeviceCount', '_cuda_setDevice', '_cuda_getCurrentRawStream'):\n"
        "    setattr(torch._C, name, touched)\n"
        "import engine.stage.preload, engine.model.text, engine.media.encoder, transformers"
    )


@pytest.mark.slow
def test_workers_need_no_web_package() -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({WEB_PACKAGES!r}))"
    run_python(f"{blocked}; import {', '.join(WITHOUT_WEB)}")
