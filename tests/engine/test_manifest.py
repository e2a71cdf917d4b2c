"""Model folders with our manifest, and every way one can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import (
    DecoderKind,
    Lora,
    Manifest,
    Order,
    PromptEffect,
    RolloutConfig,
    SinkPositions,
    Transition,
)
from engine.errors import StartError
from engine.manifest import read_manifest

TINY = Path(__file__).parents[2] / "models" / "tiny"


@pytest.fixture
def content() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((TINY / "manifest.json").read_text())
    return parsed


def read(folder: Path, content: Any) -> Manifest:
    (folder / "manifest.json").write_text(json.dumps(content))
    return read_manifest(folder)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# --- ours ---


def test_the_shipped_model() -> None:
    manifest = read_manifest(TINY)
    assert manifest.name == "tiny"
    assert manifest.transformer.dim == 192
    assert manifest.rollout == RolloutConfig(window_latent_frames=12, timestep_shift=3.0)
    assert manifest.transformer.position_frames == 12 and manifest.transformer.predicts_clean
    assert manifest.rollout.order is Order.STEP_FIRST
    assert manifest.video.sizes == ((128, 128), (96, 96))
    assert manifest.decoder is not None
    assert manifest.decoder.kind is DecoderKind.TINY
    assert manifest.decoder.widths == (64, 48, 32, 16)
    assert manifest.text is not None
    assert manifest.text.dim == manifest.transformer.text_dim
    files = (manifest.transformer_file, manifest.decoder_file, manifest.text_file, manifest.tokenizer_file)
    assert all(file is not None and file.is_file() for file in files)
    hash(manifest)


@pytest.mark.parametrize("section", [None, "transformer", "rollout", "video", "decoder", "text"])
def test_unknown_keys_are_named(tmp_path: Path, content: dict[str, Any], section: str | None) -> None:
    target = content if section is None else content[section]
    target |= {"zebra": 1, "colour": 2}
    with pytest.raises(StartError, match=rf"manifest\.json: {section or 'manifest'} has unknown keys colour, zebra"):
        read(tmp_path, content)


@pytest.mark.parametrize("section", ["transformer", "rollout", "video", "decoder", "text"])
def test_missing_sections_are_named(tmp_path: Path, content: dict[str, Any], section: str) -> None:
    del content[section]
    with pytest.raises(StartError, match=f"section '{section}' is missing"):
        read(tmp_path, content)


@pytest.mark.parametrize("section", ["transformer", "video", "text"])
@pytest.mark.parametrize("value", [None, 3, [1], "words"])
def test_sections_are_objects(tmp_path: Path, content: dict[str, Any], section: str, value: Any) -> None:
    content[section] = value
    with pytest.raises(StartError, match=f"section '{section}' is no object"):
        read(tmp_path, content)


@pytest.mark.parametrize("part", ["transformer", "decoder", "text", "tokenizer"])
def test_missing_file_entries_are_named(tmp_path: Path, content: dict[str, Any], part: str) -> None:
    del content["files"][part]
    with pytest.raises(StartError, match=rf"files\.{part} is missing"):
        read(tmp_path, content)


@pytest.mark.parametrize("files", [None, 3, [], {}, "transformer decoder text tokenizer"])
def test_files_must_be_an_object(tmp_path: Path, content: dict[str, Any], files: Any) -> None:
    content["files"] = files
    with pytest.raises(StartError, match="files"):
        read(tmp_path, content)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/../../x", 3, None])
def test_files_stay_in_the_folder(tmp_path: Path, content: dict[str, Any], name: Any) -> None:
    content["files"]["decoder"] = name
    with pytest.raises(StartError, match="outside the model's folder"):
        read(tmp_path, content)


def test_files_may_be_links_as_in_the_hubs_cache(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "blob").write_text("")
    (folder / "link").symlink_to(tmp_path / "blob")
    content["files"]["text"] = "link"
    assert read(folder, content).text_file == folder / "link"


def test_loras_and_the_key_of_our_manifest(tmp_path: Path, content: dict[str, Any]) -> None:
    content |= {
        "transformer_key": "generator",
        "loras": [{"file": "a.safetensors"}, {"file": "b.pt", "scale": 2, "alpha": 8}],
    }
    manifest = read(tmp_path, content)
    assert manifest.transformer_key == "generator"
    assert manifest.loras == (Lora(file=tmp_path / "a.safetensors"), Lora(file=tmp_path / "b.pt", scale=2.0, alpha=8.0))


@pytest.mark.parametrize(
    ("loras", "named"),
    [
        ("a.pt", "loras is no list of objects"),
        (["a.pt"], "loras is no list of objects"),
        ([{"file": "../a.pt"}], r"file '\.\./a\.pt' is outside"),
        ([{"file": "a.pt", "weight": 1}], "loras has unknown keys weight"),
        ([{"scale": 1}], "file"),
        ([{"file": "a.pt", "scale": float("inf")}], "loras: scale=inf"),
    ],
)
def test_wrong_loras_are_named(tmp_path: Path, content: dict[str, Any], loras: Any, named: str) -> None:
    content["loras"] = loras
    with pytest.raises(StartError, match=named):
        read(tmp_path, content)


def test_our_manifest_needs_no_preset(tmp_path: Path, content: dict[str, Any]) -> None:
    assert read(tmp_path, content).preset is None
    with pytest.raises(StartError, match=r"tells the model's own roll-out; leave --preset hiar out"):
        read_manifest(tmp_path, preset="hiar")
    (tmp_path / "hiar.json").write_text('{"preset": "hiar"}')
    with pytest.raises(StartError, match=r"tells the model's own roll-out; remove hiar\.json"):
        read_manifest(tmp_path)


def test_words_of_a_roll_out_become_what_they_mean(tmp_path: Path, content: dict[str, Any]) -> None:
    words = {"transition": "ode", "sink_positions": "window", "prompt_change": "re_encode_all", "order": "block_first"}
    content["transformer"] |= {"position_frames": None}
    content["rollout"] |= words | {"raw_steps": True, "first_block_steps": [1000, 500], "timestep_shift": 8}
    rollout = read(tmp_path, content).rollout
    assert rollout.transition is Transition.ODE and rollout.order is Order.BLOCK_FIRST
    assert rollout.sink_positions is SinkPositions.WINDOW and rollout.prompt_change is PromptEffect.RE_ENCODE_ALL
    assert rollout.first_block_steps == (1000, 500) and rollout.raw_steps is True
    assert type(rollout.timestep_shift) is float


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        ("rollout", "raw_steps", "no", 'raw_steps is "no"; expected true or false'),
        ("rollout", "raw_steps", 1, "raw_steps is 1; expected true or false"),
        ("rollout", "context_timestep", True, "context_timestep is true; expected a whole number"),
        ("rollout", "timestep_shift", "5", 'timestep_shift is "5"; expected a number'),
        ("rollout", "transition", "sde", 'transition is "sde"; expected re_noise or ode'),
        ("rollout", "denoising_steps", 1000, "denoising_steps is 1000; expected a list"),
        ("rollout", "denoising_steps", [1000, 0.5], "expected a list, each item a whole number"),
        ("rollout", "first_block_steps", [None], "expected a list, each item a whole number, or null"),
        ("transformer", "num_layers", 2.5, "num_layers is 2.5; expected a whole number"),
        ("video", "sizes", [[128]], "each item a list of 2"),
    ],
)
def test_values_of_another_type_are_refused(
    tmp_path: Path, content: dict[str, Any], section: str, key: str, value: Any, told: str
) -> None:
    content[section][key] = value
    with pytest.raises(StartError) as caught:
        read(tmp_path, content)
    assert told in str(caught.value) and str(caught.value).startswith(f"{tmp_path / 'manifest.json'}: {section}: ")


def test_missing_name_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["name"]
    with pytest.raises(StartError, match="name"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("transformer", "num_heads", 5, "num_heads=5"),
        ("transformer", "num_heads", 0, "transformer"),
        ("transformer", "dim", "wide", 'dim is "wide"; expected a whole number'),
        ("transformer", "position_frames", 0, "position_frames=0 is empty"),
        ("transformer", "position_frames", 5, "position_frames=5 splits a block"),
        ("rollout", "window_latent_frames", 20, "window_latent_frames=20"),
        ("rollout", "order", "sideways", "sideways"),
        ("rollout", "denoising_steps", [250, 1000], r"\(250, 1000\)"),
        ("video", "sizes", [[100, 100]], "100x100"),
        ("video", "sizes", [], "at least one size"),
        ("video", "sizes", [[128]], "video"),
        ("decoder", "kind", "huge", "huge"),
    ],
)
def test_wrong_values_are_named(
    tmp_path: Path, content: dict[str, Any], section: str, key: str, value: Any, named: str
) -> None:
    content[section][key] = value
    with pytest.raises(StartError, match=named) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "manifest.json") in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"words"', '{"name": "x",}'])
def test_broken_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StartError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_json_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(StartError, match=r"manifest\.json is not readable JSON"):
        read_manifest(tmp_path)


# --- folders ---


def test_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="gone does not exist"):
        read_manifest(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file is a file; give the folder that it lies in"):
        read_manifest(tmp_path / "file")


def test_folder_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"holds no model: needed manifest\.json"):
        read_manifest(tmp_path)
