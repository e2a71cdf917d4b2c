"""What a trainer's file holds is seen without running it, and tells which presets a folder may be of."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.student_keys import student_keys
from tests.engine.test_layouts import ORIGINAL, write_json
from tests.engine.test_students import refusal


def write_trainers_file(path: Path, content: object) -> None:
    """As ``torch.save`` lays one out, without tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))


class Executed:
    """What a hostile file would have run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("content", "fit", "unfit"),
    [
        ({"generator": {}}, ("hiar", "self-forcing", "causvid", "one-forcing"), ("longlive", "self-forcing-diffusers")),
        ({"generator_ema": {}}, ("hiar", "self-forcing", "causal-forcing-framewise"), ("causvid", "causal-forcing,")),
        ({"critic": {}}, ("hiar", "self-forcing"), ("causvid", "one-forcing")),
    ],
)
def test_a_refusal_names_the_presets_that_fit_the_keys(
    tmp_path: Path, content: dict[str, Any], fit: tuple[str, ...], unfit: tuple[str, ...]
) -> None:
    write_json(tmp_path / "config.json", ORIGINAL)
    write_trainers_file(tmp_path / "mine.pt", content)
    offered = refusal(tmp_path).partition("those that fit are ")[2]
    assert all(f"{name}," in offered or f"{name} (" in offered for name in fit), offered
    assert not any(name in offered for name in unfit), offered


def test_with_its_lora_a_generator_may_be_longlive(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", ORIGINAL)
    write_trainers_file(tmp_path / "mine.pt", {"generator": {}})
    (tmp_path / "lora.pt").touch()
    assert "longlive, longlive-infinity" in refusal(tmp_path)


def test_looking_at_keys_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_trainers_file(tmp_path / "mine.pt", {"generator": Executed()})
    assert student_keys(tmp_path / "mine.pt") == {"generator"}
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_a_file_whose_keys_cannot_be_seen_is_told_of_all(tmp_path: Path, data: bytes) -> None:
    write_json(tmp_path / "config.json", ORIGINAL)
    (tmp_path / "mine.pt").write_bytes(data)
    assert student_keys(tmp_path / "mine.pt") is None
    assert "causvid" in refusal(tmp_path) and "self-forcing" in refusal(tmp_path)
