"""Names of tensors in LoRA files, and the weights of the transformer that each belongs to. Knows no file.

Three families: PEFT's (``base_model.model.blocks.0.self_attn.q.lora_A.weight``), ComfyUI's
(``diffusion_model.blocks.0.self_attn.q.lora_down.weight``) and the one with underscores
(``lora_unet_blocks_0_self_attn_q.lora_down.weight``). The first two also come with diffusers' names of the weights.
"""

import re
from collections.abc import Collection, Iterable
from enum import Enum, auto

from engine.model.names import from_diffusers, unwrapped


class Part(Enum):
    """What a tensor of a LoRA file is to the weight it belongs to."""

    DOWN = auto()
    """A: from the weight's inputs to the rank."""
    UP = auto()
    """B: from the rank to the weight's outputs."""
    ALPHA = auto()
    """One number; the product of the two is multiplied by alpha / rank."""
    DIFFERENCE = auto()
    """To be added as it is."""


_ADAPTER = r"(\.[^.]+)?"
"""PEFT's name of the adapter, which some trainers leave in."""
_ENDINGS = [
    (re.compile(rf"\.lora(_A|_down|\.down){_ADAPTER}\.weight$"), Part.DOWN, ".weight"),
    (re.compile(rf"\.lora(_B|_up|\.up){_ADAPTER}\.weight$"), Part.UP, ".weight"),
    (re.compile(r"\.alpha$"), Part.ALPHA, ".weight"),
    (re.compile(r"\.diff$"), Part.DIFFERENCE, ".weight"),
    (re.compile(r"\.diff_b$"), Part.DIFFERENCE, ".bias"),
    (re.compile(r"\.diff_m$"), Part.DIFFERENCE, ".modulation"),
]
_ANY = re.compile(r"(^|[._])lora[._]|\.(diff|diff_b|diff_m|dora_scale)$|\.(hada|lokr)_")
"""Of all kinds of changes, those that are not understood here too."""
_DIFFUSERS = re.compile(r"\.attn[12]\.|\.ffn\.net\.|^condition_embedder\.|^proj_out\.|(^|\.)scale_shift_table\.")


def is_of_a_lora(name: str) -> bool:
    """Whether a tensor of this name changes another one, in a way that is understood here or not."""
    return _ANY.search(name) is not None


def part_of(name: str) -> tuple[Part, str] | None:
    """What the tensor is, and the file's own name of the weight it belongs to; None if it is of no known kind."""
    for ending, part, suffix in _ENDINGS:
        if found := ending.search(name):
            return part, name[: found.start()] + suffix
    return None


def targets(names: Iterable[str], wanted: Collection[str]) -> dict[str, str]:
    """Our names of the weights that a LoRA file names in its own way; those that the model does not have are absent.

    Args:
        names: as ``part_of`` tells them.
        wanted: the names of the model's tensors.
    """
    plain = {name: unwrapped(name) for name in names}
    if any(_DIFFUSERS.search(name) for name in plain.values()):
        plain = {name: from_diffusers(inner) for name, inner in plain.items()}
    underscored = {_with_underscores(name): name for name in wanted}
    found = {}
    for name, ours in plain.items():
        # A parameter that is no module's ``weight``, such as a modulation, is named whole.
        choices = ours, ours.removesuffix(".weight"), underscored.get(ours)
        chosen = next((choice for choice in choices if choice in wanted), None)
        if chosen is not None:
            found[name] = chosen
    return found


def _with_underscores(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{parameter}"
