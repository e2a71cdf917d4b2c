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
        assert result.stdout.count("engine ") == 12 * len(workers.split(","))


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
