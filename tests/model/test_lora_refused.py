"""Every way a LoRA can be wrong: refused in one sentence that names the file and the tensor, never taken in part."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Lora
from engine.errors import WeightsError
from engine.model.weights import load_transformer
from tests.model.loras import CONFIG, RANK, base_tensors, linear_halves, peft, save

CPU = torch.device("cpu")
Q = "base_model.model.blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def good() -> dict[str, Tensor]:
    return peft(linear_halves(base_tensors()))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(base_tensors(), tmp_path_factory.mktemp("base") / "base.safetensors")


def refusal(base: Path, path: Path, key: str | None = None) -> str:
    """What is said of the LoRA, after its path."""
    with pytest.raises(WeightsError) as caught:
        load_transformer(CONFIG, base, CPU, loras=[Lora(file=path, key=key)])
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"blocks.7.o.lora_A.weight": torch.zeros(3, 24)},
            "the model does not have, blocks.7.o.lora_A.weight;",
        ),
        ({"text_model.q.lora_A.weight": torch.zeros(3, 24)}, "the model does not have, text_model.q.lora_A.weight;"),
        ({"lora_te_q.lora_up.weight": torch.zeros(3, 24)}, "the model does not have, lora_te_q.lora_up.weight;"),
        ({"blocks.7.a.alpha": torch.ones(()), "blocks.7.b.alpha": torch.ones(())}, "blocks.7.a.alpha and 1 more; give"),
        ({f"{Q}.lora_A.weight": None}, f"has {Q}.lora_B.weight without its A;"),
        ({f"{Q}.lora_B.weight": None}, f"has {Q}.lora_A.weight without its B;"),
        ({"head.head.alpha": torch.ones(())}, "has head.head.alpha without its A and B;"),
        (
            {f"{Q}.lora_A.weight": torch.zeros(RANK, 25)},
            f"{Q}.lora_B.weight [24, 3] by {Q}.lora_A.weight [3, 25], which does not fit "
            "blocks.0.self_attn.q.weight [24, 24];",
        ),
        ({f"{Q}.lora_B.weight": torch.zeros(23, RANK)}, "does not fit blocks.0.self_attn.q.weight [24, 24]"),
        ({f"{Q}.lora_B.weight": torch.zeros(24, RANK + 1)}, "does not fit blocks.0.self_attn.q.weight [24, 24]"),
        ({f"{Q}.lora_B.weight": torch.zeros(24)}, "does not fit"),
        ({f"{Q}.lora_A.weight": torch.zeros(())}, "does not fit"),
        ({f"{Q}.lora_A.weight": torch.zeros(0, 24), f"{Q}.lora_B.weight": torch.zeros(24, 0)}, "does not fit"),
        ({"head.head.diff_b": torch.zeros(7)}, "has head.head.diff_b [7], which does not fit head.head.bias [64];"),
        ({f"{Q}.dora_scale": torch.ones(24)}, f"has {Q}.dora_scale, which is no A, B, alpha or difference"),
        ({f"{Q}.lora_magnitude_vector.weight": torch.ones(24)}, "lora_magnitude_vector.weight, which is no A, B,"),
        ({f"{Q}.hada_w1_a": torch.ones(24), f"{Q}.hada_w1_b": torch.ones(24)}, f"{Q}.hada_w1_a and 1 more, which is"),
        ({f"{Q}.lora_B.bias": torch.ones(24)}, f"has {Q}.lora_B.bias, which is no A, B,"),
        ({"head.head.weight": torch.ones(64, 24)}, "has head.head.weight, which is no A, B,"),
        ({f"{Q}.lora_A.default.weight": torch.zeros(RANK, 24)}, "has the same twice, "),
        ({f"{Q}.lora_A.weight": torch.zeros(RANK, 24, dtype=torch.int8)}, f"{Q}.lora_A.weight as torch.int8;"),
        ({f"{Q}.alpha": torch.ones(2)}, f"has {Q}.alpha, which is not one number;"),
        ({f"{Q}.alpha": torch.tensor(torch.nan)}, f"has {Q}.alpha = nan, which is no alpha;"),
    ],
)
def test_a_tensor_that_cannot_be_merged(
    good: dict[str, Tensor], base: Path, tmp_path: Path, change: dict[str, Tensor | None], told: str
) -> None:
    content = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
    assert told in refusal(base, save(content, tmp_path / "lora.safetensors"))
    assert told in refusal(base, save({"generator_lora": content}, tmp_path / "lora.pt"))


def test_a_file_of_something_else(base: Path, tmp_path: Path) -> None:
    whole = save(base_tensors(), tmp_path / "whole.safetensors")
    told = "holds no tensors of a LoRA, blocks.0.cross_attn.k.bias is none; give a LoRA file, and a whole model as"
    assert told in refusal(base, whole)
    assert "holds no tensors of a LoRA, it is empty;" in refusal(base, save({}, tmp_path / "lora.safetensors"))
    assert "holds no dictionary of tensors, nor has one as" in refusal(base, save({"step": 3}, tmp_path / "lora.pt"))


def test_a_vector_has_no_low_rank(good: dict[str, Tensor], base: Path, tmp_path: Path) -> None:
    halves = {"blocks.0.norm3.lora_A.weight": torch.zeros(3, 1), "blocks.0.norm3.lora_B.weight": torch.zeros(24, 3)}
    told = "[24, 3] by blocks.0.norm3.lora_A.weight [3, 1], which does not fit blocks.0.norm3.weight [24]"
    assert told in refusal(base, save(good | halves, tmp_path / "lora.pt"))


@pytest.mark.parametrize("name", ["lora.safetensors", "lora.pt"])
def test_a_file_that_is_elsewhere(base: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert refusal(base, path).startswith("is a Git LFS pointer")


def test_a_key_that_is_not_there(good: dict[str, Tensor], base: Path, tmp_path: Path) -> None:
    path = save({"generator_lora": good, "critic_lora": good}, tmp_path / "lora.pt")
    told = "has no lora; take one of the keys that hold some: generator_lora, critic_lora"
    assert refusal(base, path, "lora") == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lora_alpha": 8, "use_dora": True}, "asks for use_dora, which is not done here;"),
        ({"lora_alpha": 8, "alpha_pattern": {"q": 4}}, "asks for alpha_pattern, which is not done here;"),
        ({"lora_alpha": "much", "r": RANK}, "has lora_alpha, which is not one number;"),
        ({"lora_alpha": 8, "r": 16}, "r is 16, not 3; take it away"),
        ({"lora_alpha": 8, "r": [16]}, "r is [16], not 3; take it away"),
        ([1], "has settings that are no JSON object;"),
    ],
)
def test_settings_that_cannot_be_followed(
    good: dict[str, Tensor], base: Path, tmp_path: Path, settings: Any, told: str
) -> None:
    path, beside = save(good, tmp_path / "lora.pt"), tmp_path / "adapter_config.json"
    beside.write_text(json.dumps(settings))
    with pytest.raises(WeightsError) as caught:
        load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)])
    assert str(caught.value).startswith(f"{beside} ")
    assert told in str(caught.value)
    save(good, tmp_path / "own.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    assert told in refusal(base, tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "has settings that are no JSON: "), ("version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer")],
)
def test_settings_that_are_none(good: dict[str, Tensor], base: Path, tmp_path: Path, text: str, told: str) -> None:
    path, beside = save(good, tmp_path / "lora.pt"), tmp_path / "adapter_config.json"
    beside.write_text(text)
    with pytest.raises(WeightsError) as caught:
        load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)])
    assert str(caught.value).startswith(f"{beside} {told}")


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_factor(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale=(nan|inf) of lora\.pt is no factor"):
        Lora(file=Path("lora.pt"), scale=scale)
