"""Which preset a folder is of, and which file is its student: told, or refused with what helps."""

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from engine.config import Lora, Order, RolloutConfig
from engine.errors import StartError
from engine.law.presets import PRESETS, Layout, Preset, RolloutChanges
from engine.manifest import WAN_1_3B, published_manifest, read_manifest
from tests.engine.test_layouts import DIFFUSERS, ORIGINAL, write_json

BASE = ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json")
BY_PRESET = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda one: one.name)
ORIGINALS = pytest.mark.parametrize(
    "preset", [one for one in PRESETS.values() if one.layout is Layout.ORIGINAL], ids=lambda one: one.name
)


def place(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def published(folder: Path, preset: Preset) -> Path:
    """A folder with all that a preset's download has, but for what is in its weights."""
    if preset.layout is Layout.DIFFUSERS:
        write_json(folder / "transformer" / "config.json", DIFFUSERS)
        return place(folder, preset.file.replace("*", "diffusion_pytorch_model"), "vae/config.json")
    write_json(folder / "config.json", ORIGINAL)
    return place(folder, preset.file, *(lora.file for lora in preset.loras), *BASE)


def original(folder: Path, *names: str) -> Path:
    write_json(folder / "config.json", ORIGINAL)
    return place(folder, *names)


def refusal(folder: Path, **asked: Any) -> str:
    with pytest.raises(StartError) as caught:
        read_manifest(folder, **asked)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- presets ---


@BY_PRESET
@pytest.mark.parametrize("way", ["hiar.json", "--preset"])
def test_a_preset_that_is_named_says_all(tmp_path: Path, preset: Preset, way: str) -> None:
    folder = published(tmp_path, preset)
    if way == "hiar.json":
        write_json(folder / "hiar.json", {"preset": preset.name})
    manifest = read_manifest(folder, preset=None if way == "hiar.json" else preset.name)
    assert (manifest.preset, manifest.rollout, manifest.transformer) == (preset.name, preset.rollout, WAN_1_3B)
    assert preset.title in manifest.description
    assert manifest.loras == tuple(Lora(file=folder / lora.file, key=lora.key) for lora in preset.loras)
    if preset.layout is Layout.ORIGINAL:
        assert (manifest.transformer_file, manifest.transformer_key) == (folder / preset.file, preset.transformer_key)
    else:
        assert (manifest.transformer_file, manifest.transformer_key) == (folder / "transformer", None)
    hash(manifest)


@ORIGINALS
def test_a_published_place_tells_the_preset(tmp_path: Path, preset: Preset) -> None:
    manifest = read_manifest(published(tmp_path, preset))
    assert manifest.preset == ("longlive" if preset.name == "longlive-infinity" else preset.name)


@ORIGINALS
def test_a_published_name_beside_the_sizes_tells_it_if_it_is_the_only_such(tmp_path: Path, preset: Preset) -> None:
    name = PurePosixPath(preset.file).name
    folder = original(tmp_path, name, *(PurePosixPath(lora.file).name for lora in preset.loras), *BASE)
    if name in {"model.pt", "causal_forcing.pt"}:
        assert f"nothing tells the roll-out of {name}" in refusal(folder)
        assert f"it may be {'causvid' if name == 'model.pt' else 'causal-forcing or causal-forcing-framewise'}" in (
            refusal(folder)
        )
    else:
        assert read_manifest(folder).rollout == PRESETS[read_manifest(folder).preset or ""].rollout
    asked = read_manifest(folder, preset=preset.name)
    assert (asked.preset, asked.transformer_file, asked.rollout) == (preset.name, folder / name, preset.rollout)
    assert asked.transformer_key == preset.transformer_key


@pytest.mark.parametrize("name", ["causal-forcing", "causal-forcing-framewise", "causvid"])
def test_the_published_name_of_the_folder_tells_it_too(tmp_path: Path, name: str) -> None:
    place_there = PurePosixPath(PRESETS[name].file)
    folder = original(tmp_path / place_there.parent, place_there.name)
    assert read_manifest(folder).preset == name


@BY_PRESET
def test_a_preset_can_be_planned_for_before_it_is_there(preset: Preset) -> None:
    manifest = published_manifest(preset.name, RolloutChanges(timestep_shift=3.0))
    assert manifest.rollout == replace(preset.rollout, timestep_shift=3.0)
    assert (manifest.name, manifest.preset, manifest.transformer) == (preset.name, preset.name, WAN_1_3B)


def test_another_preset_of_the_same_file_must_be_named(tmp_path: Path) -> None:
    folder = published(tmp_path, PRESETS["longlive"])
    write_json(folder / "hiar.json", {"preset": "longlive", "rollout": {"sink_latent_frames": 6}})
    assert read_manifest(folder).rollout.sink_latent_frames == 6
    assert read_manifest(folder, preset="longlive").rollout.sink_latent_frames == 6
    asked = read_manifest(folder, preset="longlive-infinity")
    assert asked.rollout == PRESETS["longlive-infinity"].rollout


# --- students of other names ---


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["student.safetensors"], "student.safetensors"),
        (["taew2_1.safetensors", "the_student.safetensors"], "the_student.safetensors"),
        (["student.pt", "lora_rank64.pt", "Wan2_1_VAE_bf16.safetensors", "umt5-xxl.safetensors"], "student.pt"),
        (["diffusion_pytorch_model.safetensors", "student.pt"], "student.pt"),
        (
            ["w-00001-of-00002.safetensors", "w-00002-of-00002.safetensors", "w.safetensors.index.json"],
            "w.safetensors.index.json",
        ),
    ],
)
def test_the_only_other_file_is_the_student_of_the_preset_that_is_named(
    tmp_path: Path, present: list[str], chosen: str
) -> None:
    folder = original(tmp_path, *present)
    assert "nothing tells the roll-out" in refusal(folder)
    assert read_manifest(folder, preset="self-forcing").transformer_file == folder / chosen


@pytest.mark.parametrize(
    ("preset", "name", "key"),
    [
        ("self-forcing", "mine.pt", None),
        ("causal-forcing", "mine.pt", "generator"),
        ("causal-forcing", "mine.safetensors", None),
        ("hiar", "mine.pt", None),
    ],
)
def test_a_student_of_another_name_may_lack_an_average(tmp_path: Path, preset: str, name: str, key: str | None) -> None:
    assert read_manifest(original(tmp_path, name), preset=preset).transformer_key == key


def test_hiar_is_known_by_its_name_beside_others(tmp_path: Path) -> None:
    folder = original(tmp_path, "a_student.pt", "diffusion_pytorch_model.safetensors", "hiar.pt", "lora.pt")
    assert read_manifest(folder).transformer_file == folder / "hiar.pt"
    assert read_manifest(folder).rollout == RolloutConfig()


# --- what is refused ---


def test_a_folder_without_a_student(tmp_path: Path) -> None:
    text = refusal(original(tmp_path, "lora_rank64.pt"))
    assert "holds no transformer: needed hiar.pt or the file of another preset (found lora_rank64.pt)" in text
    assert f"hiar-download NAME --to {tmp_path} fetches one of hiar, self-forcing," in text


@pytest.mark.parametrize("asked", [None, "self-forcing"])
@pytest.mark.parametrize(
    "names",
    [
        ["diffusion_pytorch_model.safetensors"],
        ["diffusion_pytorch_model.safetensors", "Wan2_1_VAE_bf16.safetensors", "lora.pt"],
        [
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
            "diffusion_pytorch_model.safetensors.index.json",
        ],
    ],
)
def test_the_plain_base_is_refused_by_that_name(tmp_path: Path, names: list[str], asked: str | None) -> None:
    text = refusal(original(tmp_path, *names), preset=asked)
    assert "is the plain bidirectional Wan2.1 base" in text and all(name in text for name in names)


def test_a_diffusers_folder_must_be_told(tmp_path: Path) -> None:
    write_json(tmp_path / "transformer" / "config.json", DIFFUSERS)
    text = refusal(tmp_path)
    assert "if it is the plain bidirectional Wan2.1 base, it cannot" in text
    assert "name its preset by --preset, or in hiar.json: one of hiar, " in text


def test_students_of_two_presets_are_not_chosen_from(tmp_path: Path) -> None:
    folder = original(tmp_path, "chunkwise/causal_forcing.pt", "framewise/causal_forcing.pt")
    text = refusal(folder)
    assert "students of several presets: causal-forcing (chunkwise/causal_forcing.pt), causal-forcing-framewise" in text
    assert read_manifest(folder, preset="causal-forcing-framewise").rollout.latent_frames_per_block == 1


def test_the_student_of_another_preset_is_not_taken(tmp_path: Path) -> None:
    text = refusal(original(tmp_path, "hiar.pt"), preset="causvid")
    assert "holds no student of preset causvid, hiar.pt is of hiar; needed autoregressive_checkpoint/model.pt" in text


def test_several_files_are_not_chosen_from(tmp_path: Path) -> None:
    text = refusal(original(tmp_path, "a.pt", "b.pt"), preset="self-forcing")
    assert "holds a.pt, b.pt, of which any may be preset self-forcing's" in text
    assert "nothing tells the roll-out of a.pt, b.pt" in refusal(tmp_path)


def test_a_lora_that_belongs_to_it_is_needed(tmp_path: Path) -> None:
    folder = published(tmp_path, PRESETS["longlive"])
    (folder / "models/lora.pt").unlink()
    assert "lacks models/lora.pt of preset longlive; hiar-download longlive --to" in refusal(folder)


def test_a_preset_that_does_not_exist(tmp_path: Path) -> None:
    folder = original(tmp_path, "hiar.pt")
    assert refusal(folder, preset="krea").startswith("there is no preset 'krea'; there are hiar, self-forcing, ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "hiar.json holds no JSON object"),
        ({}, "preset is None; expected one of hiar, "),
        ({"preset": ["hiar"]}, "preset is ['hiar']; expected one of hiar, "),
        ({"preset": "krea"}, "preset is 'krea'; expected one of hiar, "),
        ({"preset": "hiar", "steps": [1000]}, "has unknown keys steps; it has preset and rollout"),
        ({"preset": "hiar", "rollout": 3}, "rollout is no object"),
        ({"preset": "hiar", "rollout": {"windows": 9}}, "rollout has unknown keys windows"),
        ({"preset": "hiar", "rollout": {"window_latent_frames": "9"}}, 'window_latent_frames is "9"; expected a whole'),
        ({"preset": "hiar", "rollout": {"window_latent_frames": 10}}, "does not go with preset hiar: window_latent_fr"),
    ],
)
def test_a_wrong_hiar_json_is_named(tmp_path: Path, content: Any, told: str) -> None:
    folder = original(tmp_path, "hiar.pt")
    write_json(folder / "hiar.json", content)
    text = refusal(folder)
    assert told in text and str(folder / "hiar.json") in text


# --- changes ---


def test_changes_replace_the_presets_values_and_those_of_the_folder(tmp_path: Path) -> None:
    folder = original(tmp_path, "hiar.pt")
    write_json(folder / "hiar.json", {"preset": "hiar", "rollout": {"window_latent_frames": 12, "transition": "ode"}})
    changes = RolloutChanges(window_latent_frames=9, order=Order.BLOCK_FIRST)
    rollout = read_manifest(folder, overrides=changes).rollout
    assert (rollout.window_latent_frames, rollout.order, rollout.transition) == (9, Order.BLOCK_FIRST, "ode")


@pytest.mark.parametrize(
    ("preset", "changes", "told"),
    [
        ("hiar", RolloutChanges(window_latent_frames=10), "--window 10 does not go with the roll-out of preset hiar"),
        ("longlive", RolloutChanges(sink_latent_frames=12), "--sink 12 does not go with the roll-out of preset longl"),
        ("causal-forcing-1step", RolloutChanges(order=Order.STEP_FIRST), "--order step_first does not go with"),
    ],
)
def test_changes_that_do_not_fit_are_told_as_flags(preset: str, changes: RolloutChanges, told: str) -> None:
    with pytest.raises(StartError) as caught:
        published_manifest(preset, changes)
    assert told in str(caught.value) and "self." not in str(caught.value)


def test_more_loras_come_behind_the_presets_own(tmp_path: Path) -> None:
    folder = published(tmp_path, PRESETS["longlive"])
    style = Lora(file=place(tmp_path, "style.safetensors") / "style.safetensors", scale=0.5)
    loras = read_manifest(folder, loras=(style,)).loras
    assert [lora.file.name for lora in loras] == ["lora.pt", "style.safetensors"] and loras[1] == style
    gone = Lora(file=tmp_path / "gone.pt")
    assert refusal(folder, loras=(gone,)) == f"--lora names {tmp_path / 'gone.pt'}, which is no file"
