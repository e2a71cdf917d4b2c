"""Low-rank changes of the transformer's weights, read from LoRA files and merged while the weights are loaded.

W + scale * (alpha / rank) * B A, in float32, one tensor at a time, where the weights shall be. A LoRA is taken whole or
refused: each of its tensors must be understood, belong to a weight of the model and fit it. Afterwards nothing is left
of it but other weights.

Letters: O outputs, I inputs, R rank.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engine.config import Lora
from engine.errors import WeightsError
from engine.model.lora_names import Part, part_of, targets
from engine.model.reading import read_tensors
from engine.model.student import LORA_KEYS
from engine.weight_files import printable, refuse_pointer, weight_file

_SETTINGS_NAME = "adapter_config.json"
"""What PEFT writes beside the tensors: with which alpha they were trained."""
_SETTINGS_IN_FILE, _SETTINGS_PREFIX = "lora_adapter_metadata", "transformer."
"""What diffusers writes into the file's own metadata instead, as JSON whose keys have a prefix."""
_ALPHA = "lora_alpha"
_ALPHA_IN_FILE = (_ALPHA, "ss_network_alpha", "alpha")

_OTHER_KIND = "save it as a plain LoRA, or merged into the model"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LowRank:
    """``factor * up @ down``, which is added to a weight [O, ...]; a convolution's inputs are flattened to I."""

    up_OR: Tensor
    down_RI: Tensor
    factor: float

    def added_to(self, weight: Tensor) -> Tensor:
        """The changed weight, a tensor of its own; the given one is float32."""
        up_OR, down_RI = (part.to(weight.device, torch.float32) for part in (self.up_OR, self.down_RI))
        return torch.addmm(weight.flatten(1), up_OR, down_RI, alpha=self.factor).view_as(weight)


@dataclass(frozen=True)
class Difference:
    """``factor * value``, which is added to a tensor of the same shape."""

    value: Tensor
    factor: float

    def added_to(self, weight: Tensor) -> Tensor:
        """The changed tensor, one of its own; the given one is float32."""
        return torch.add(weight, self.value.to(weight.device, torch.float32), alpha=self.factor)


Change = LowRank | Difference
Parts = dict[Part, tuple[str, Tensor]]
"""What a LoRA file has for one weight: the file's names and tensors."""


@dataclass(frozen=True)
class _Settings:
    """What a LoRA says of itself besides its tensors."""

    alpha: float | None = None
    """None where it says nothing: then alpha is the rank."""
    by_root_of_rank: bool = False

    def factor(self, rank: int, own_alpha: float | None) -> float:
        """alpha / rank, with the alpha of one weight where it has its own."""
        alpha = own_alpha if own_alpha is not None else self.alpha
        return (rank if alpha is None else alpha) / (rank**0.5 if self.by_root_of_rank else rank)


def read_changes(loras: Iterable[Lora], wanted: Mapping[str, Shape]) -> dict[str, list[Change]]:
    """What the LoRAs do to a model's tensors, each tensor's changes in the order of the LoRAs.

    The tensors stay in the pages of their files; only alphas are read.

    Args:
        loras: files, with the factor for each.
        wanted: shapes of the model's tensors by name.

    Raises:
        WeightsError: a file cannot be read or is no LoRA, or one of its tensors is not understood, lacks its other
            half, has no target in the model or does not fit it.
    """
    changes: dict[str, list[Change]] = {}
    for lora in loras:
        for name, change in _changes_of(lora, wanted):
            changes.setdefault(name, []).append(change)
    return changes


@torch.no_grad()
def merged(tensor: Tensor, changes: Sequence[Change], device: torch.device) -> Tensor:
    """The tensor after these changes, in float32 on ``device``; without changes the tensor as it is."""
    if not changes:
        return tensor
    tensor = tensor.to(device, torch.float32)
    for change in changes:
        tensor = change.added_to(tensor)
    return tensor


def _changes_of(lora: Lora, wanted: Mapping[str, Shape]) -> Iterator[tuple[str, Change]]:
    tensors = read_tensors(lora.file, lora.key, LORA_KEYS)
    parts = _by_weight(tensors, lora.file, wanted)
    halves = [part[Part.DOWN][1] for part in parts.values() if Part.DOWN in part]
    settings = _read_settings(lora, {half.shape[0] for half in halves if half.dim()})
    for target, part in parts.items():
        if Part.DIFFERENCE in part:
            name, value = part[Part.DIFFERENCE]
            if tuple(value.shape) != wanted[target]:
                raise _misfit(lora.file, f"{name} {list(value.shape)}", target, wanted)
            yield target, Difference(value, lora.scale)
        if part.keys() - {Part.DIFFERENCE}:
            yield target, _low_rank(part, target, lora, settings, wanted)


def _by_weight(tensors: Mapping[str, Tensor], path: Path, wanted: Mapping[str, Shape]) -> dict[str, Parts]:
    understood = _understood(tensors, path)
    found = targets({weight for _, weight in understood.values()}, wanted)
    lost = sorted(name for name, (_, weight) in understood.items() if weight not in found)
    if lost:
        raise _refusal(path, f"changes what the model does not have, {_first(lost)}; give a LoRA of this model")
    parts: dict[str, Parts] = {}
    for name, (kind, weight) in understood.items():
        of_weight = parts.setdefault(found[weight], {})
        if kind in of_weight:
            raise _refusal(path, f"has the same twice, {of_weight[kind][0]} and {name}; leave one of them")
        if not tensors[name].is_floating_point() and kind != Part.ALPHA:
            raise _refusal(path, f"has {name} as {tensors[name].dtype}; save it as floating point numbers")
        of_weight[kind] = name, tensors[name]
    return parts


def _understood(tensors: Mapping[str, Tensor], path: Path) -> dict[str, tuple[Part, str]]:
    """What each tensor is and which weight it belongs to, by the file's own name of that."""
    understood = {name: part for name in tensors if (part := part_of(name)) is not None}
    unknown = sorted(tensors.keys() - understood.keys())
    if not understood:
        some = f"{unknown[0]} is none" if unknown else "it is empty"
        raise _refusal(path, f"holds no tensors of a LoRA, {some}; give a LoRA file, and a whole model as the model")
    if unknown:
        raise _refusal(path, f"has {_first(unknown)}, which is no A, B, alpha or difference of a weight; {_OTHER_KIND}")
    return understood


def _low_rank(part: Parts, target: str, lora: Lora, settings: _Settings, wanted: Mapping[str, Shape]) -> LowRank:
    lacking = [letter for kind, letter in ((Part.DOWN, "A"), (Part.UP, "B")) if kind not in part]
    if lacking:
        name = next(part[kind][0] for kind in (Part.DOWN, Part.UP, Part.ALPHA) if kind in part)
        raise _refusal(lora.file, f"has {name} without its {' and '.join(lacking)}; fetch it again, or save it anew")
    (up_name, up), (down_name, down) = part[Part.UP], part[Part.DOWN]
    outputs, rank, inputs = wanted[target][0], down.shape[:1].numel(), prod(wanted[target][1:])
    matrices = min(len(wanted[target]), up.dim(), down.dim()) >= 2 and rank > 0
    if not matrices or _flat(up) != (outputs, rank) or _flat(down) != (rank, inputs):
        halves = f"{up_name} {list(up.shape)} by {down_name} {list(down.shape)}"
        raise _misfit(lora.file, halves, target, wanted)
    own = None
    if Part.ALPHA in part:
        name, alpha = part[Part.ALPHA]
        own = _number(alpha, name, lora.file)
    return LowRank(up.flatten(1), down.flatten(1), lora.scale * settings.factor(rank, own))


def _flat(tensor: Tensor) -> Shape:
    return tensor.shape[0], prod(tensor.shape[1:])


def _read_settings(lora: Lora, ranks: set[int]) -> _Settings:
    source, stated = _stated(weight_file(lora.file))
    for odd in ("use_dora", "alpha_pattern"):
        if stated.get(odd):
            raise _refusal(source, f"asks for {odd}, which is not done here; {_OTHER_KIND}")
    rank = stated.get("r")
    if rank is not None and ranks and rank not in (*ranks,) and not stated.get("rank_pattern"):
        raise _refusal(source, f"is of another LoRA than {lora.file}: r is {rank}, not {max(ranks)}; take it away")
    alpha = stated.get(_ALPHA)
    return _Settings(
        alpha=lora.alpha if alpha is None else _number(alpha, _ALPHA, source),
        by_root_of_rank=bool(stated.get("use_rslora")),
    )


def _stated(file: Path) -> tuple[Path, dict[str, Any]]:
    """What the file's metadata says, or else the settings beside it, or else nothing; and who says it."""
    stated = _in_file(file) if file.suffix == ".safetensors" else {}
    beside = file.parent / _SETTINGS_NAME
    if stated or not beside.exists():
        return file, stated
    refuse_pointer(beside)
    return beside, _json_object(beside.read_text(errors="replace"), beside)


def _in_file(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    if _SETTINGS_IN_FILE in metadata:
        stated = _json_object(metadata[_SETTINGS_IN_FILE], file)
        return {key.removeprefix(_SETTINGS_PREFIX): value for key, value in stated.items()}
    alpha = next((metadata[key] for key in _ALPHA_IN_FILE if key in metadata), None)
    return {} if alpha is None else {_ALPHA: alpha}


def _json_object(text: str, source: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refusal(source, f"has settings that are no JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise _refusal(source, "has settings that are no JSON object; fetch it again")
    return content


def _number(value: Any, name: str, source: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refusal(source, f"has {name}, which is not one number; save it anew") from error
    if not isfinite(number):
        raise _refusal(source, f"has {name} = {number}, which is no alpha; save it anew")
    return number


def _misfit(path: Path, what: str, target: str, wanted: Mapping[str, Shape]) -> WeightsError:
    return _refusal(path, f"has {what}, which does not fit {target} {list(wanted[target])}; give a LoRA of this model")


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _refusal(path: Path, text: str) -> WeightsError:
    return WeightsError(printable(f"{path} {text}"))
