"""What a load costs the host: no more than what is kept, whatever else the file holds.

The files are sparse, so they are made in a moment, none of their bytes is in memory before somebody reads it, and what
was read can be counted. (Values are compared in ``test_weights.py``.)
"""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.text import umt5_encoder
from tests.model.measured_load import DECODER, TEXT, TRANSFORMER

ROOT = Path(__file__).parents[2]
NOISE = 12_000_000
"""Python's objects for a file's tensors and the network's modules, in bytes; the weights are 60 MB and more."""


def trainers_file(folder: Path) -> Path:
    """A student, its average in the middle of the file, a critic, and two moments of an optimizer of both."""
    with FakeTensorMode():
        state = CausalWan(TRANSFORMER).state_dict()

        def copy() -> dict[str, Tensor]:
            return {f"model.{name}": torch.empty_like(tensor) for name, tensor in state.items()}

        def moments() -> dict[str, object]:
            pairs = zip(copy().values(), copy().values(), strict=True)
            return {"state": {index: {"exp_avg": a, "exp_avg_sq": b} for index, (a, b) in enumerate(pairs)}}

        content = {"critic": copy(), "critic_optimizer": moments(), "generator": copy()}
        content |= {"generator_ema": copy(), "generator_optimizer": moments(), "step": 100}
    return torch_file(content, folder)


def vae_file(folder: Path) -> Path:
    """The decoder, and the encoder that nothing is encoded with."""
    with FakeTensorMode():
        content = build_decoder(DECODER, with_encoder=True).state_dict()
    return torch_file(content, folder)


def text_file(folder: Path) -> Path:
    """The encoder, with its table of tokens twice."""
    with FakeTensorMode():
        content = {name: torch.empty_like(tensor) for name, tensor in umt5_encoder(TEXT).state_dict().items()}
    return torch_file(content, folder)


def torch_file(content: Mapping[str, object], folder: Path) -> Path:
    path = folder / "weights.pt"
    with skip_data(materialize_fake_tensors=True):
        torch.save(content, path)
    return path


def safetensors_file(folder: Path) -> Path:
    with torch.device("meta"):
        state = CausalWan(TRANSFORMER).state_dict()
    header, end = {}, 0
    for name, tensor in state.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    path = folder / "student.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    ("part", "make"),
    [("transformer", trainers_file), ("transformer", safetensors_file), ("decoder", vae_file), ("text", text_file)],
)
def test_a_load_takes_what_it_keeps_and_reads_what_it_wants(
    part: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    command = [sys.executable, "-m", "tests.model.measured_load", part, str(path), "float32", "bfloat16"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    mapped, converted = json.loads(answer.stdout)

    # The file's type is the wanted one, so nothing is copied.
    assert mapped["anonymous"] < NOISE

    wanted, others = mapped["kept"], path.stat().st_size - mapped["kept"]
    assert converted["kept"] == wanted // 2
    assert converted["anonymous"] > 0.9 * converted["kept"], "memory was not measured"
    assert converted["anonymous"] < 1.3 * converted["kept"]
    # The system reads ahead of what is asked for by many megabytes.
    assert mapped["read"] + converted["read"] < wanted + others / 4 + NOISE
