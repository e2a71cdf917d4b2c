"""Reading checkpoints: three layouts, and every way a file can be wrong."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.config import DecoderConfig, DecoderKind, TransformerConfig
from engine.errors import StartError, WeightsError
from engine.model.dit import CausalWan
from engine.model.tiny_vae import TinyVae
from engine.model.weights import load_decoder, load_transformer, read_tensors

CPU = torch.device("cpu")
CONFIG = TransformerConfig(dim=24, ffn_dim=40, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=8)
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)

ORIGINAL_TO_DIFFUSERS = (
    ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
    ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
    ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
    ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
    ("time_projection.1.", "condition_embedder.time_proj."),
    ("head.modulation", "scale_shift_table"),
    ("head.head.", "proj_out."),
    (".modulation", ".scale_shift_table"),
    (".self_attn.", ".attn1."),
    (".cross_attn.", ".attn2."),
    (".q.", ".to_q."),
    (".k.", ".to_k."),
    (".v.", ".to_v."),
    (".o.", ".to_out.0."),
    (".norm3.", ".norm2."),
    (".ffn.0.", ".ffn.net.0.proj."),
    (".ffn.2.", ".ffn.net.2."),
)


def diffusers_name(name: str) -> str:
    """The table of spec section 2.2, read from left to right."""
    for original, theirs in ORIGINAL_TO_DIFFUSERS:
        name = name.replace(original, theirs)
    return name


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn_like(tensor) for name, tensor in CausalWan(CONFIG).state_dict().items()}


def assert_holds(model: CausalWan, tensors: dict[str, Tensor]) -> None:
    loaded = model.state_dict()
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def save_sharded(tensors: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    names = sorted(tensors)
    shards = {"w-00001-of-00002.safetensors": names[::2], "w-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = folder / "w.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


# --- layouts ---


def test_original_safetensors(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    assert_holds(load_transformer(CONFIG, path, CPU), tensors)
    assert_holds(load_transformer(CONFIG, tmp_path, CPU), tensors)


@pytest.mark.parametrize("keys", [("generator",), ("generator", "generator_ema"), ("generator_ema",), ("model",)])
def test_trainer_checkpoint_prefers_the_average(
    tensors: dict[str, Tensor], tmp_path: Path, keys: tuple[str, ...]
) -> None:
    def wrap(values: dict[str, Tensor]) -> dict[str, Tensor]:
        wrapped = {}
        for name, value in values.items():
            inner = name.replace("blocks.1.", "blocks.1._fsdp_wrapped_module._checkpoint_wrapped_module.")
            wrapped[f"model._fsdp_wrapped_module.{inner}"] = value
        return wrapped

    best = keys[-1]
    content: dict[str, Any] = {"critic": {"junk": torch.zeros(1)}, "step": 20_000, "generator_optimizer": {"lr": 1.0}}
    for key in keys:
        values = tensors if key == best else {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        content[key] = wrap(values)
    path = tmp_path / "hiar.pt"
    torch.save(content, path)
    assert_holds(load_transformer(CONFIG, path, CPU), tensors)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_flat_torch_file(tensors: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"student{suffix}"
    torch.save(tensors, path)
    assert_holds(load_transformer(CONFIG, path, CPU), tensors)


def test_diffusers_shards_in_a_folder(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded({diffusers_name(name): tensor for name, tensor in tensors.items()}, tmp_path / "transformer")
    assert_holds(load_transformer(CONFIG, index.parent, CPU), tensors)
    assert_holds(load_transformer(CONFIG, index, CPU), tensors)


def test_weights_take_the_asked_type(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, path)
    assert load_transformer(CONFIG, path, CPU).dtype == torch.float32
    assert load_transformer(CONFIG, path, CPU, torch.bfloat16).dtype == torch.bfloat16


# --- misfits ---


def test_every_misfit_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    wrong = dict(tensors)
    del wrong["head.head.bias"], wrong["blocks.0.modulation"]
    wrong |= {"blocks.9.modulation": torch.zeros(1), "stray": torch.zeros(1)}
    wrong |= {"blocks.1.ffn.0.bias": torch.zeros(7), "head.modulation": torch.zeros(2, 24)}
    path = tmp_path / "model.safetensors"
    save_file(wrong, path)
    with pytest.raises(WeightsError) as caught:
        load_transformer(CONFIG, path, CPU)
    message = str(caught.value)
    assert str(path) in message
    assert "2 missing: blocks.0.modulation, head.head.bias" in message
    assert "2 unexpected: blocks.9.modulation, stray" in message
    shapes = "blocks.1.ffn.0.bias is [7], needed [40], head.modulation is [2, 24], needed [1, 2, 24]"
    assert f"2 wrong shape: {shapes}" in message


def test_weights_errors_are_start_errors() -> None:
    assert issubclass(WeightsError, StartError)


# --- files that are not what they should be ---


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pt", "gone", "gone.safetensors.index.json"])
def test_absent_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name} does not exist"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_file(tensors: dict[str, Tensor], tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match=path.name):
        read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".safetensors.index.json"])
def test_file_of_something_else(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=path.name):
        read_tensors(path)


class Bait:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_program_is_refused_and_not_run(tensors: dict[str, Tensor], tmp_path: Path, legacy: bool) -> None:
    bites = tmp_path / "bites"
    pickle.loads(pickle.dumps(Bait(bites)))
    assert bites.exists(), "the bait is dull"
    marker, path = tmp_path / "marker", tmp_path / "hiar.pt"
    torch.save({"generator": tensors, "step": Bait(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"hiar\.pt cannot be read as plain tensors"):
        load_transformer(CONFIG, path, CPU)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker, path = tmp_path / "marker", tmp_path / "hiar.pth"
    path.write_bytes(pickle.dumps(Bait(marker), protocol))
    with pytest.raises(WeightsError, match=r"hiar\.pth"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"generator": 3}, {0: torch.zeros(1)}, {"a": torch.zeros(1), "b": "text"}, None]
)
def test_torch_file_without_tensors(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "hiar.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        read_tensors(path)


def test_unknown_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"model\.gguf is neither"):
        read_tensors(path)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/secret.safetensors", "sub/w.safetensors", "..", "."])
def test_shards_stay_in_their_folder(tensors: dict[str, Tensor], tmp_path: Path, shard: str) -> None:
    save_file(tensors, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    save_file(tensors, folder / "sub" / "w.safetensors")
    (folder / "w.safetensors.index.json").write_text(json.dumps({"weight_map": {"head.modulation": shard}}))
    with pytest.raises(WeightsError, match=r"no \.safetensors file of its folder"):
        read_tensors(folder)


def test_a_missing_shard_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded(tensors, tmp_path / "model")
    (index.parent / "w-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"w-00002-of-00002\.safetensors does not exist"):
        read_tensors(index.parent)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"weight_map": ["w.safetensors"]},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": "w.safetensors.index.json"}},
    ],
)
def test_broken_shard_index(tmp_path: Path, content: Any) -> None:
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=index.name):
        read_tensors(index)


def test_folder_without_or_with_too_many_files(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"0 indices and 0 \.safetensors"):
        read_tensors(tmp_path)
    save_file(tensors, tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"0 indices and 2 \.safetensors"):
        read_tensors(tmp_path)


# --- decoders ---


def test_tiny_decoder_passes_over_the_encoder(tmp_path: Path) -> None:
    config = DecoderConfig(kind=DecoderKind.TINY, latent_channels=4, widths=(12, 8, 8, 8))
    whole = TinyVae(config, with_encoder=True)
    path = tmp_path / "decoder.safetensors"
    save_file(whole.state_dict(), path)
    decoder = load_decoder(config, path, CPU)
    latents = torch.randn(2, 4, 2, 2)
    with torch.inference_mode():
        assert torch.equal(decoder.decode(latents, None)[0], whole.decode(latents, None)[0])


def test_tiny_decoder_wants_all_of_itself(tmp_path: Path) -> None:
    config = DecoderConfig(kind=DecoderKind.TINY, latent_channels=4, widths=(12, 8, 8, 8))
    state = TinyVae(config, with_encoder=False).state_dict()
    lost = sorted(state)[0]
    del state[lost]
    path = tmp_path / "decoder.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=f"1 missing: {lost}"):
        load_decoder(config, path, CPU)


@LIBRARY_WARNINGS
@pytest.mark.slow
@pytest.mark.parametrize("num_res_blocks", [1, 2])
def test_wan_decoder_from_diffusers(tmp_path: Path, num_res_blocks: int) -> None:
    from diffusers import AutoencoderKLWan  # noqa: PLC0415

    torch.manual_seed(2)
    theirs = AutoencoderKLWan(base_dim=4, num_res_blocks=num_res_blocks).eval()
    save_file(theirs.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    config = DecoderConfig(kind=DecoderKind.WAN, dim=4, num_res_blocks=num_res_blocks)
    decoder = load_decoder(config, tmp_path, CPU)
    latents = torch.randn(2, 16, 2, 3)
    with torch.inference_mode():
        pixels, _ = decoder.decode(latents, None)
        expected = theirs.decode(latents.transpose(0, 1)[None], return_dict=False)[0][0].transpose(0, 1)
    assert pixels.shape == (5, 3, 16, 24)
    assert float((pixels - (expected + 1).div(2).clamp(0, 1)).abs().max()) < 1e-4
