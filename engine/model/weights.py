"""Reading checkpoint files and putting them into networks, strictly.

Reads ``.safetensors`` (one file, an index of shards, or a folder of either) and ``.pt`` / ``.pth`` with
``weights_only=True``. Every tensor must be there, be wanted and have the right shape; a misfit is a ``WeightsError``
that names all of them. Knows no download and no device placement beyond ``to``.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind, TransformerConfig
from engine.errors import WeightsError
from engine.model.decoder import Decoder, build_decoder, store_channels_last
from engine.model.dit import CausalWan
from engine.model.names import transformer_names, vae_names

_TRAINER_KEYS = ("generator_ema", "generator", "model")
"""Where a trainer's checkpoint keeps the student, best first (spec section 2.1)."""


def load_transformer(
    config: TransformerConfig, path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> CausalWan:
    """The transformer with its weights, ready for inference. Raises ``WeightsError``."""
    tensors = transformer_names(read_tensors(path))
    with torch.device("meta"):
        model = CausalWan(config)
    load_strictly(model, tensors, path)
    return model.to(device, dtype).eval().requires_grad_(False)


def load_decoder(
    config: DecoderConfig, path: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Decoder:
    """The decoder with its weights, ready for inference, on a GPU channels-last. Raises ``WeightsError``."""
    tensors = read_tensors(path)
    if config.kind == DecoderKind.WAN:
        tensors = vae_names(tensors, config.num_res_blocks)
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")}
    model = build_decoder(config)
    load_strictly(model, tensors, path)
    model = model.to(device, dtype)
    if device.type == "cuda":
        store_channels_last(model)
    return model.eval().requires_grad_(False)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give the module exactly these tensors.

    Raises:
        WeightsError: a tensor is missing, unexpected or has another shape; all are named with ``path``.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    complaints = _misfits(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if complaints:
        raise WeightsError(f"{path} does not fit the model: " + "; ".join(complaints))
    model.load_state_dict(dict(tensors), assign=True)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, on the CPU, under the names the file uses.

    Raises:
        WeightsError: the file is absent, truncated, of an unknown kind, or holds anything but tensors.
    """
    if not path.exists():
        raise WeightsError(f"weight file {path} does not exist")
    if path.is_dir():
        return _read_folder(path)
    if path.name.endswith(".safetensors.index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in {".pt", ".pth"}:
        return _read_torch(path)
    raise WeightsError(f"{path} is neither .safetensors nor .pt/.pth")


def _misfits(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> list[str]:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {list(found[name])}, needed {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    return [f"{len(items)} {label}: {', '.join(items)}" for label, items in groups if items]


def _read_folder(folder: Path) -> dict[str, Tensor]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    files = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        return _read_shards(indices[0])
    if len(files) == 1:
        return _read_safetensors(files[0])
    raise WeightsError(f"{folder} holds {len(indices)} indices and {len(files)} .safetensors files, needed one of one")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        shards = {str(shard) for shard in json.loads(index.read_text())["weight_map"].values()}
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{index} is no shard index: {error}") from error
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise WeightsError(f"{index} names a shard that is no .safetensors file of its folder: {shard}")
        tensors |= read_tensors(index.parent / shard)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as plain tensors: {error}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in _TRAINER_KEYS if key in content), content)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise WeightsError(f"{path} holds no dictionary of tensors")
    return content
