"""Putting checkpoints into networks, strictly and tensor by tensor.

Every tensor must be there, be wanted and have the right shape; a misfit is a ``WeightsError`` that names all of them.
Knows no download and no device placement beyond ``to``.

Host memory: a tensor is converted and moved alone, straight out of the mapped file. So a worker holds what it keeps and
one tensor more, whatever else the file contains: on a GPU nothing stays on the host, and on a CPU weights that are in
the wanted type already stay in the file's pages.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind, Lora, TransformerConfig
from engine.errors import WeightsError
from engine.model.decoder import Decoder, build_decoder, store_channels_last
from engine.model.dit import CausalWan
from engine.model.lora import Change, merged, read_changes
from engine.model.lora_names import is_of_a_lora
from engine.model.names import are_scaled_fp8, part_for_pictures, transformer_names, vae_names
from engine.model.reading import OnRead, read_tensors
from engine.weight_files import printable

__all__ = ["load_decoder", "load_strictly", "load_transformer", "read_named", "read_tensors"]

Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_CPU = torch.device("cpu")
_NO_CHANGES: Mapping[str, Sequence[Change]] = MappingProxyType({})
ENCODER_PREFIXES = {DecoderKind.WAN: ("encoder.", "conv1."), DecoderKind.TINY: ("encoder.",)}
"""What the names of an autoencoder's other side begin with."""


def load_transformer(
    config: TransformerConfig,
    path: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    key: str | None = None,
    loras: Sequence[Lora] = (),
    on_read: OnRead | None = None,
) -> CausalWan:
    """The transformer with its weights, ready for inference.

    Args:
        config: its sizes.
        path: a file, an index of shards, or a folder of either.
        device: where the weights shall be.
        dtype: the type they shall have.
        key: the dictionary of a trainer's file that holds them; None takes the best there is.
        loras: low-rank changes that are merged into them, in this order, before they take their type.
        on_read: is told of the progress through ``path``.

    Raises:
        WeightsError: a file cannot be read, is of another kind, has nothing under the key, or does not fit the model.
    """
    tensors = read_named(path, transformer_names, key)
    _require_a_whole_model(tensors, path)
    with torch.device("meta"):
        model = CausalWan(config)
    changes = read_changes(loras, _wanted(model))
    load_strictly(model, tensors, path, device=device, dtype=dtype, changes=changes, on_read=on_read)
    return model.eval().requires_grad_(False)


def load_decoder(
    config: DecoderConfig,
    path: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    with_encoder: bool = False,
    on_read: OnRead | None = None,
) -> Decoder:
    """The decoder with its weights, ready for inference, on a GPU channels-last. Raises ``WeightsError``.

    The file's encoder is passed over, there or not, unless it is asked for.
    """
    is_wan = config.kind == DecoderKind.WAN
    tensors = read_named(path, partial(vae_names, num_res_blocks=config.num_res_blocks) if is_wan else dict)
    if not with_encoder:
        prefixes = ENCODER_PREFIXES[config.kind]
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}
    with torch.device("meta"):
        model = build_decoder(config, with_encoder=with_encoder)
    load_strictly(model, tensors, path, device=device, dtype=dtype, on_read=on_read)
    if device.type == "cuda":
        store_channels_last(model)
    return model.eval().requires_grad_(False)


def read_named(path: Path, rename: Rename, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint, of a trainer's file those under ``key`` or the student's, under our names.

    Raises:
        WeightsError: the file cannot be read, has nothing under the key, holds scaled fp8 weights, or has a tensor
            under two names.
    """
    tensors = read_tensors(path, key)
    if are_scaled_fp8(tensors):
        raise WeightsError(f"{path} holds scaled fp8 weights; give the file that holds them in bfloat16 or float32")
    try:
        return rename(tensors)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit the model: {printable(str(error))}; leave one of them") from error


def load_strictly(
    model: nn.Module,
    tensors: dict[str, Tensor],
    path: Path,
    *,
    device: torch.device = _CPU,
    dtype: torch.dtype | None = None,
    changes: Mapping[str, Sequence[Change]] = _NO_CHANGES,
    on_read: OnRead | None = None,
) -> None:
    """Give the module exactly these tensors with these changes, on ``device`` and in ``dtype`` (None: in their own).

    A module that appears at several places, as a tied embedding does, is given its tensors once, under its first name.
    ``tensors`` is empty afterwards: each source is let go as soon as its copy is made.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape or no floating point number; all are named
            with ``path``.
    """
    complaints = _misfits(_wanted(model), tensors)
    if complaints:
        misfits = printable("; ".join(complaints))
        raise WeightsError(f"{path} does not fit the model; give weights and description of the same one: {misfits}")
    done, total = 0, sum(tensor.nbytes for tensor in tensors.values())
    moved = {}
    for name in list(tensors):
        tensor = tensors.pop(name).detach()
        moved[name] = merged(tensor, changes.get(name, ()), device).to(device, dtype or tensor.dtype)
        done += tensor.nbytes
        if on_read is not None:
            on_read(path, done, total)
    # Not strict, because a shared module's other names are left out. All others were compared above.
    model.load_state_dict(moved, strict=False, assign=True)
    given = chain(model.parameters(), model.buffers())
    assert not any(tensor.is_meta for tensor in given), "a tensor was given no value"


def _require_a_whole_model(tensors: Mapping[str, Tensor], path: Path) -> None:
    if any(is_of_a_lora(name) for name in tensors):
        if any(".base_layer." in name for name in tensors):
            raise WeightsError(f"{path} has a LoRA beside the weights it changes; save it with the LoRA merged")
        raise WeightsError(f"{path} is a LoRA file; give its base as the model, and this file by --lora")
    picture = part_for_pictures(tensors)
    if picture is not None:
        what = f"an image-to-video, VACE or camera variant, as {picture} shows"
        raise WeightsError(printable(f"{path} is {what}; give a text-to-video checkpoint"))


def _wanted(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by name; of a tensor with several names the first."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name: tuple(state[name].shape) for name in first.values()}


def _misfits(expected: dict[str, tuple[int, ...]], tensors: dict[str, Tensor]) -> list[str]:
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    known = {name: tensors[name] for name in sorted(expected.keys() & tensors.keys())}
    shapes = [
        f"{name} is {list(tensor.shape)}, needed {list(expected[name])}"
        for name, tensor in known.items()
        if tuple(tensor.shape) != expected[name]
    ]
    types = [f"{name} is {tensor.dtype}" for name, tensor in known.items() if not tensor.is_floating_point()]
    groups = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes), ("not floating point", types))
    return [f"{len(items)} {label}: {', '.join(items)}" for label, items in groups if items]
