"""The command that compares us with the reference's numbers, and that it can say no."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.parity.__main__ import main

GOLDEN = Path("tests/data/golden")


@dataclass(frozen=True)
class Answer:
    """Of the command, run in this process: what its workers are forked from is then here for all of these tests."""

    status: object
    """A number, or a sentence for stderr."""
    said: str


Parity = Callable[..., Answer]


@pytest.fixture
def parity(capsys: pytest.CaptureFixture[str]) -> Parity:
    def run(folder: Path, *options: str) -> Answer:
        with pytest.raises(SystemExit) as caught:
            main([str(folder), *options])
        return Answer(caught.value.code, capsys.readouterr().out)

    return run


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "workers"), [("public-a", "1"), ("public-b", "5"), ("public-vae", "1"), ("public-text", "1")]
)
def test_recorded_numbers_are_met(name: str, workers: str, parity: Parity) -> None:
    result = parity(GOLDEN / name, "--workers", workers)
    assert result.status == 0, result.said
    assert "all within 0.0001" in result.said
    if name in {"public-a", "public-b"}:
        assert [line.split()[:2] for line in result.said.splitlines()[:-1]] == [
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
def test_numbers_of_other_repositories_are_met(name: str, only: str, workers: str, parity: Parity) -> None:
    result = parity(GOLDEN / name, "--only", only, "--workers", workers)
    assert result.status == 0, result.said
    assert [line.endswith("  ok") for line in result.said.splitlines()[:-1]] == [True] * 2 * len(only.split(","))


@pytest.mark.slow
def test_a_rollout_that_is_not_there_is_refused(parity: Parity) -> None:
    result = parity(GOLDEN / "longlive", "--only", "plain,other")
    assert "has no roll-out other; it has plain, switch" in str(result.status)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [("public-vae", "codec", "encoded"), ("public-text", "encoding", "embeddings")],
)
def test_a_wrong_number_is_reported(tmp_path: Path, name: str, file: str, tensor: str, parity: Parity) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    path = folder / f"{file}.safetensors"
    tensors = load_file(path)
    tensors[tensor].view(-1)[0] += 0.01
    save_file(tensors, path)
    result = parity(folder)
    assert result.status == 1 and "TOO FAR" in result.said


@pytest.mark.slow
def test_a_folder_of_no_kind_is_refused_by_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.parity", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "needed one" in result.stderr
