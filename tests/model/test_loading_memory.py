"""What a load costs the host: no more than what is kept, whatever else the file holds.

The files are sparse, so they are made in a moment, none of their bytes is in memory before somebody reads it, and what
was read can be counted. (Values are compared in ``test_weights.py``.)
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from engine.config import TransformerConfig
from engine.law.sizes import transformer_weights
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.text import umt5_encoder
from engine.model.weights import load_transformer
from tests.model.measured_load import DECODER, LORA_NAME, TEXT, TRANSFORMER, anonymous_bytes

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


def safetensors_file(folder: Path, config: TransformerConfig = TRANSFORMER) -> Path:
    with torch.device("meta"):
        state = CausalWan(config).state_dict()
    return sparse_file({name: tuple(tensor.shape) for name, tensor in state.items()}, folder / "student.safetensors")


def base_and_lora(folder: Path) -> Path:
    """A student, and a LoRA of rank 64 for all linear layers of its blocks."""
    path = safetensors_file(folder)
    with torch.device("meta"):
        state = CausalWan(TRANSFORMER).state_dict()
    changed = {name: tensor.shape for name, tensor in state.items() if name.startswith("blocks.") and tensor.dim() == 2}
    downs = {name.replace(".weight", ".lora_A.weight"): (64, inputs) for name, (_, inputs) in changed.items()}
    ups = {name.replace(".weight", ".lora_B.weight"): (outputs, 64) for name, (outputs, _) in changed.items()}
    sparse_file(downs | ups, folder / LORA_NAME)
    return path


def sparse_file(shapes: Mapping[str, tuple[int, ...]], path: Path, kind: str = "F32") -> Path:
    num_bytes, header, end = {"F32": 4, "BF16": 2}[kind], {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + num_bytes * prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    return path


def measured(part: str, path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """What loads in the file's own type and in half of it took."""
    command = [sys.executable, "-m", "tests.model.measured_load", part, str(path), "float32", "bfloat16"]
    # The C library otherwise raises this as tensors are freed, and keeps for later what should be given back.
    settled = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=settled)
    assert answer.returncode == 0, answer.stderr
    mapped, converted = json.loads(answer.stdout)
    return mapped, converted


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
    mapped, converted = measured(part, path)

    # The file's type is the wanted one, so nothing is copied.
    assert mapped["anonymous"] < NOISE

    wanted, others = mapped["kept"], path.stat().st_size - mapped["kept"]
    assert converted["kept"] == wanted // 2
    assert converted["anonymous"] > 0.9 * converted["kept"], "memory was not measured"
    assert converted["anonymous"] < 1.3 * converted["kept"]
    # The system reads ahead of what is asked for by many megabytes.
    assert mapped["read"] + converted["read"] < wanted + others / 4 + NOISE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_lora_takes_room_for_one_tensor_while_it_is_merged(tmp_path: Path) -> None:
    mapped, converted = measured("changed transformer", base_and_lora(tmp_path))
    largest = 4 * TRANSFORMER.dim * TRANSFORMER.ffn_dim
    for found in (mapped, converted):
        assert 0.9 * found["kept"] < found["anonymous"] < found["kept"] + 3 * largest + NOISE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_fourteen_billion_weights_load_without_being_read(tmp_path: Path) -> None:
    """Wan 14B's sizes, in shards as they are published; Linux maps none that is larger than memory."""
    config = TransformerConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, text_dim=4096, text_len=512)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in CausalWan(config).state_dict().items()}
    assert len(shapes) == 1095
    weight_map = {name: f"w-{shard_of(name)}-of-00012.safetensors" for name in shapes}
    for shard in set(weight_map.values()):
        members = {name: shape for name, shape in shapes.items() if weight_map[name] == shard}
        sparse_file(members, tmp_path / shard, "BF16")
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    before = anonymous_bytes()
    model = load_transformer(config, tmp_path, torch.device("cpu"), torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == transformer_weights(config) == 14_288_491_584
    assert anonymous_bytes() - before < 2 * NOISE


def shard_of(name: str) -> str:
    """The shard of a tensor: a layer's lie together."""
    layer = int(name.split(".")[1]) if name.startswith("blocks.") else 0
    return f"{1 + layer % 12:05}"
