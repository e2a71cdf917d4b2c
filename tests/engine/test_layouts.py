"""Model folders in the two layouts people have, and the choice of their decoder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import Order, RolloutConfig, TransformerConfig
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


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


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
