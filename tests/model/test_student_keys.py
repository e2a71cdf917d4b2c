"""Which dictionary of a trainer's file is taken: the one that was asked for, or the best there is."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import WeightsError
from engine.model.reading import read_tensors
from engine.model.student import LORA_KEYS
from tests.model.checkpoints import assert_equal, small_student


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return small_student()


def others(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other numbers under the same names, so that a wrong choice shows."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


def save(content: Any, folder: Path) -> Path:
    path = folder / "student.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", ["generator", "generator_ema", "model", "state_dict", "generator_lora", "critic"])
def test_the_asked_key_is_taken_from_beside_all_others(tensors: dict[str, Tensor], tmp_path: Path, key: str) -> None:
    beside = ("generator_ema", "generator", "model", "state_dict", "generator_lora", "critic")
    path = save({name: others(tensors) for name in beside} | {key: tensors, "step": 1}, tmp_path)
    assert_equal(read_tensors(path, key), tensors)


def test_without_a_key_the_best_is_taken(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    order = ("generator_ema", "generator", "model", "state_dict", "generator_lora")
    for rank, best in enumerate(order):
        content = {name: others(tensors) for name in reversed(order[rank:])} | {best: tensors}
        assert_equal(read_tensors(save(content, tmp_path)), tensors)
    content = {"generator": others(tensors), "generator_lora": tensors}
    assert_equal(read_tensors(save(content, tmp_path), among=LORA_KEYS), tensors)


@pytest.mark.parametrize("outer", [("state_dict",), ("model",), ("state_dict", "model"), ("model", "state_dict")])
@pytest.mark.parametrize("key", [None, "generator"])
def test_dictionaries_in_dictionaries_are_opened(
    tensors: dict[str, Tensor], tmp_path: Path, outer: tuple[str, ...], key: str | None
) -> None:
    content: dict[str, Any] = {"generator": tensors, "critic": others(tensors), "generator_ema": None}
    for name in outer:
        content = {name: content, "step": 1}
    assert_equal(read_tensors(save(content, tmp_path), key), tensors)


def test_what_an_asked_key_holds_is_opened_too(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    content = {"generator": {"state_dict": tensors, "decay": 0.99}, "generator_ema": others(tensors)}
    assert_equal(read_tensors(save(content, tmp_path), "generator"), tensors)


def test_a_critic_is_not_opened_for_a_key(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = save({"critic": {"model": others(tensors)}, "generator": tensors}, tmp_path)
    with pytest.raises(WeightsError, match=r"student\.pt has no model; .*: critic, generator$"):
        read_tensors(path, "model")


@pytest.mark.parametrize(
    ("average", "state"),
    [
        (None, "None"),
        ({}, "empty"),
        (OrderedDict(), "empty"),
        (3, "no dictionary"),
        (torch.zeros(2), "no dictionary"),
    ],
)
def test_an_asked_key_without_tensors_is_refused(
    tensors: dict[str, Tensor], tmp_path: Path, average: Any, state: str
) -> None:
    path = save({"generator_ema": average, "generator": tensors, "step": 100}, tmp_path)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path, "generator_ema")
    expected = f"has no tensors as generator_ema, which is {state}; take one of the keys that hold some: generator"
    assert str(caught.value) == f"{path} {expected}"


def test_an_absent_key_is_refused_with_those_that_are_there(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = save({"state_dict": {"generator": tensors, "critic": tensors}, "empty": {}, "step": 1}, tmp_path)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path, "generator_ema")
    there = "state_dict, state_dict.generator, state_dict.critic"
    assert str(caught.value) == f"{path} has no generator_ema; take one of the keys that hold some: {there}"


def test_a_refusal_is_one_printable_line_whatever_the_keys_are(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = save({f"\x1b[31m{index}\n": tensors for index in range(20)} | {3: tensors}, tmp_path)
    with pytest.raises(WeightsError, match=r" and 13 more$") as caught:
        read_tensors(path, "generator\n")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["student.pt", "student.safetensors"])
def test_a_key_of_a_file_without_keys_is_refused(tensors: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    with pytest.raises(WeightsError, match=rf"{name} .*no (key )?generator; .*leave the key out$"):
        read_tensors(path, "generator")
    assert_equal(read_tensors(path), tensors)
