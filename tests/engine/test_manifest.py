"""Model folders: our manifest, the two layouts people have, and every way a folder can be wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import (
    DecoderKind,
    Lora,
    Manifest,
    Order,
    PromptChange,
    RolloutConfig,
    SinkPositions,
    TransformerConfig,
    Transition,
)
from engine.errors import StartError
from engine.manifest import TAEHV_DECODER, UMT5_XXL, WAN_DECODER, read_manifest

TINY = Path(__file__).parents[2] / "models" / "tiny"
PUBLISHED = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)
DIFFUSERS = {
    "_class_name": "WanTransformer3DModel",
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "ffn_dim": 8960,
    "freq_dim": 256,
    "in_channels": 16,
    "num_attention_heads": 12,
    "num_layers": 30,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "text_dim": 4096,
}
ORIGINAL = {
    "_class_name": "WanModel",
    "dim": 1536,
    "eps": 1e-06,
    "ffn_dim": 8960,
    "freq_dim": 256,
    "in_dim": 16,
    "model_type": "t2v",
    "num_heads": 12,
    "num_layers": 30,
    "out_dim": 16,
    "text_len": 512,
}


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
    assert rollout.sink_positions is SinkPositions.WINDOW and rollout.prompt_change is PromptChange.RE_ENCODE_ALL
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
    with pytest.raises(StartError, match="file does not exist"):
        read_manifest(tmp_path / "file")


def test_folder_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"holds no model: needed manifest\.json"):
        read_manifest(tmp_path)


# --- diffusers ---


def test_diffusers_layout(tmp_path: Path) -> None:
    write_json(tmp_path / "transformer" / "config.json", DIFFUSERS)
    manifest = read_manifest(tmp_path, preset="self-forcing-diffusers")
    assert manifest.transformer == PUBLISHED
    assert manifest.rollout == RolloutConfig(order=Order.BLOCK_FIRST)
    assert (manifest.preset, manifest.transformer_key) == ("self-forcing-diffusers", None)
    assert manifest.text == UMT5_XXL
    assert manifest.video.sizes[0] == (832, 480)
    assert manifest.dtype == "bfloat16"
    assert manifest.transformer_file == tmp_path / "transformer"
    assert manifest.decoder_file == tmp_path / "vae"
    assert manifest.text_file == tmp_path / "text_encoder"
    assert manifest.tokenizer_file == tmp_path / "tokenizer"


def test_wan_latent_statistics(tmp_path: Path) -> None:
    write_json(tmp_path / "transformer" / "config.json", DIFFUSERS)
    decoder = read_manifest(tmp_path, preset="hiar").decoder
    assert decoder is not None
    golden = TINY.parents[1] / "tests" / "data" / "golden" / "public-vae" / "config.json"
    recorded = json.loads(golden.read_text())
    assert list(decoder.latents_mean) == recorded["latents_mean"]
    assert list(decoder.latents_std) == recorded["latents_std"]


# --- original ---


def test_original_layout(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", ORIGINAL)
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "a_self_forcing.pt").touch()
    (tmp_path / "hiar.pt").touch()
    manifest = read_manifest(tmp_path)
    assert manifest.transformer == PUBLISHED
    assert manifest.rollout == RolloutConfig()
    assert manifest.text == UMT5_XXL
    assert manifest.dtype == "bfloat16"
    assert manifest.transformer_file == tmp_path / "hiar.pt"
    assert manifest.decoder_file == tmp_path / "Wan2.1_VAE.pth"
    assert manifest.text_file == tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    assert manifest.tokenizer_file == tmp_path / "google" / "umt5-xxl"


@pytest.mark.parametrize(
    ("layout", "where", "lost"),
    [
        (DIFFUSERS, "transformer/config.json", "num_attention_heads"),
        (DIFFUSERS, "transformer/config.json", "in_channels"),
        (ORIGINAL, "config.json", "dim"),
        (ORIGINAL, "config.json", "text_len"),
    ],
)
def test_incomplete_configs_are_named(tmp_path: Path, layout: dict[str, Any], where: str, lost: str) -> None:
    (tmp_path / "hiar.pt").touch()
    write_json(tmp_path / where, {key: value for key, value in layout.items() if key != lost})
    with pytest.raises(StartError, match=lost) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / where) in str(caught.value)


LAYOUTS = pytest.mark.parametrize(
    ("layout", "where"), [(DIFFUSERS, "transformer/config.json"), (ORIGINAL, "config.json")]
)


@LAYOUTS
def test_what_a_config_leaves_out_is_as_wan_has_it(tmp_path: Path, layout: dict[str, Any], where: str) -> None:
    (tmp_path / "hiar.pt").touch()
    left_out = {"text_dim", "freq_dim", "eps"}
    write_json(tmp_path / where, {key: value for key, value in layout.items() if key not in left_out})
    assert read_manifest(tmp_path, preset="hiar").transformer == PUBLISHED
    stated = {"text_dim": 2048, "freq_dim": 128, "eps": 1e-5}
    write_json(tmp_path / where, layout | stated)
    assert read_manifest(tmp_path, preset="hiar").transformer == replace(
        PUBLISHED, text_dim=2048, freq_dim=128, eps=1e-5
    )


@LAYOUTS
@pytest.mark.parametrize("eps", [0, -1e-6, 1, "small", None])
def test_an_eps_that_is_none_is_refused(tmp_path: Path, layout: dict[str, Any], where: str, eps: Any) -> None:
    (tmp_path / "hiar.pt").touch()
    write_json(tmp_path / where, layout | {"eps": eps})
    with pytest.raises(StartError, match=r"config\.json: "):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("layout", "where", "key"),
    [(DIFFUSERS, "transformer/config.json", "num_attention_heads"), (ORIGINAL, "config.json", "num_heads")],
)
@pytest.mark.parametrize("value", ["twelve", 0, None])
def test_wrong_configs_are_named(tmp_path: Path, layout: dict[str, Any], where: str, key: str, value: Any) -> None:
    (tmp_path / "hiar.pt").touch()
    write_json(tmp_path / where, layout | {key: value})
    with pytest.raises(StartError, match=r"config\.json"):
        read_manifest(tmp_path)


# --- the choice of a decoder ---


@pytest.fixture(params=["diffusers", "original"])
def wan_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "hiar"
    if request.param == "diffusers":
        write_json(folder / "transformer" / "config.json", DIFFUSERS)
    else:
        write_json(folder / "config.json", ORIGINAL)
        (folder / "student.pt").touch()
    return folder


@pytest.mark.parametrize("file", ["taew2_1.pth", "taew2_1.safetensors"])
def test_the_tiny_decoder_beside_the_wan_vae(wan_folder: Path, file: str) -> None:
    (wan_folder / file).touch()
    own, wan, tiny = (read_manifest(wan_folder, decoder, preset="hiar") for decoder in (None, "wan", "tiny"))
    assert own.decoder == WAN_DECODER
    assert own == wan
    assert (tiny.decoder, tiny.decoder_file) == (TAEHV_DECODER, wan_folder / file)
    assert TAEHV_DECODER.widths == (256, 128, 64, 64)
    assert replace(tiny, decoder=own.decoder, decoder_file=own.decoder_file) == own


def test_a_tiny_decoder_that_is_not_there(wan_folder: Path) -> None:
    with pytest.raises(StartError) as caught:
        read_manifest(wan_folder, "tiny", preset="hiar")
    files = "taew2_1.safetensors or taew2_1.pth"
    assert str(caught.value) == f"{wan_folder} has no tiny decoder; put {files} there, or use wan"


def test_the_small_model_has_its_own_decoder_only() -> None:
    assert read_manifest(TINY, "tiny") == read_manifest(TINY)
    with pytest.raises(StartError, match=r"models/tiny has no wan decoder; it has tiny only$"):
        read_manifest(TINY, "wan")
