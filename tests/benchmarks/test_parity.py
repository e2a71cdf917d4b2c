"""The command that compares us with the reference's numbers, and that it can say no."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

GOLDEN = Path("tests/data/golden")


def parity(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.parity", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "workers"), [("public-a", "1"), ("public-b", "5"), ("public-vae", "1"), ("public-text", "1")]
)
def test_recorded_numbers_are_met(name: str, workers: str) -> None:
    result = parity(GOLDEN / name, "--workers", workers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all within 0.0001" in result.stdout
    if name in {"public-a", "public-b"}:
        assert [line.split()[:2] for line in result.stdout.splitlines()[:-1]] == [
            [order, path] for order in ("step_first", "block_first") for path in ("oracle", "engine,")
        ]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "only", "workers"),
    [
        ("hiar-options", "image,first_block_alone", "5"),
        ("longlive", "early_switch,switch_new_sink", "most"),
        ("causal-forcing-plus-1step", "image", "1"),
    ],
)
def test_numbers_of_other_repositories_are_met(name: str, only: str, workers: str) -> None:
    result = parity(GOLDEN / name, "--only", only, "--workers", workers)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line.endswith("  ok") for line in result.stdout.splitlines()[:-1]] == [True] * 2 * len(only.split(","))


@pytest.mark.slow
def test_a_rollout_that_is_not_there_is_refused() -> None:
    result = parity(GOLDEN / "longlive", "--only", "plain,other")
    assert result.returncode == 1 and "has no roll-out other; it has plain, switch" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [("public-vae", "codec", "encoded"), ("public-text", "encoding", "embeddings")],
)
def test_a_wrong_number_is_reported(tmp_path: Path, name: str, file: str, tensor: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    path = folder / f"{file}.safetensors"
    tensors = load_file(path)
    tensors[tensor].view(-1)[0] += 0.01
    save_file(tensors, path)
    result = parity(folder)
    assert result.returncode == 1 and "TOO FAR" in result.stdout


@pytest.mark.slow
def test_a_folder_of_no_kind_is_refused(tmp_path: Path) -> None:
    result = parity(tmp_path)
    assert result.returncode == 1 and "needed one" in result.stderr
