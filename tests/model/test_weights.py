"""Checkpoints become networks: three layouts, misfits, progress, and decoders with and without an encoder."""

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind, TransformerConfig
from engine.errors import StartError, WeightsError
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.tiny_vae import TinyVae
from engine.model.vae import WanVae
from engine.model.weights import load_decoder, load_strictly, load_transformer
from tests.model.checkpoints import save_sharded

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


def test_the_asked_key_of_a_trainers_file_is_loaded(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, other = tmp_path / "causal_forcing.pt", {name: tensor + 1 for name, tensor in tensors.items()}
    average = {f"model._fsdp_wrapped_module.{name}": tensor for name, tensor in other.items()}
    torch.save({"generator": {f"model.{n}": t for n, t in tensors.items()}, "generator_ema": average}, path)
    assert_holds(load_transformer(CONFIG, path, CPU, key="generator"), tensors)
    assert_holds(load_transformer(CONFIG, path, CPU), other)


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
    assert message.startswith(f"{path} does not fit the model; give weights and description of the same one: ")
    assert "2 missing: blocks.0.modulation, head.head.bias" in message
    assert "2 unexpected: blocks.9.modulation, stray" in message
    shapes = "blocks.1.ffn.0.bias is [7], needed [40], head.modulation is [2, 24], needed [1, 2, 24]"
    assert f"2 wrong shape: {shapes}" in message


def test_numbers_that_are_no_weights_are_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors | {"head.modulation": torch.zeros(1, 2, 24, dtype=torch.int8)}, path)
    with pytest.raises(WeightsError, match=r"1 not floating point: head\.modulation is torch\.int8"):
        load_transformer(CONFIG, path, CPU)


def scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as 8-bit numbers beside one scale each."""
    weights = {name: tensor for name, tensor in tensors.items() if tensor.dim() > 1}
    scales = {name.removesuffix("weight") + "scale_weight": t.abs().max() / 448 for name, t in weights.items()}
    return tensors | {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()} | scales


def test_scaled_fp8_is_refused_by_its_name(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"diffusion_model.{name}": tensor for name, tensor in scaled(tensors).items()}, path)
    with pytest.raises(WeightsError, match=r"model\.safetensors holds scaled fp8 weights; give the file .*bfloat16"):
        load_transformer(CONFIG, path, CPU)


@pytest.mark.parametrize("key", [None, "generator_lora"])
def test_a_lora_in_place_of_the_model_is_refused_by_its_name(tmp_path: Path, key: str | None) -> None:
    path, name = tmp_path / "lora.pt", "base_model.model.blocks.0.self_attn.q.lora_A.weight"
    torch.save({"generator_lora": {name: torch.zeros(4, 24)}}, path)
    fix = "give its base as the model, and this file by --lora"
    with pytest.raises(WeightsError, match=rf"lora\.pt is a LoRA file; {fix}$"):
        load_transformer(CONFIG, path, CPU, key=key)


def test_a_lora_beside_what_it_changes_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    wrapped = {name.replace(".q.", ".q.base_layer."): tensor for name, tensor in tensors.items()}
    path = tmp_path / "student.safetensors"
    save_file(wrapped | {"blocks.0.self_attn.q.lora_A.default.weight": torch.zeros(4, 24)}, path)
    with pytest.raises(WeightsError, match=r"student\.safetensors has a LoRA beside the weights .* merged$"):
        load_transformer(CONFIG, path, CPU)


def test_an_image_to_video_checkpoint_is_refused_by_its_name(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "i2v.safetensors"
    save_file(tensors | {"model.img_emb.proj.0.weight": torch.zeros(2)}, path)
    what = r"an image-to-video, VACE or camera variant, as img_emb\.proj\.0\.weight shows"
    with pytest.raises(WeightsError, match=rf"i2v\.safetensors is {what}; give a text-to-video checkpoint$"):
        load_transformer(CONFIG, path, CPU)


def test_fp8_without_scales_is_taken_as_it_is(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, narrow = tmp_path / "model.safetensors", {n: t.to(torch.float8_e4m3fn) for n, t in tensors.items()}
    save_file(narrow, path)
    assert_holds(load_transformer(CONFIG, path, CPU), {name: tensor.float() for name, tensor in narrow.items()})


def test_names_in_a_file_cannot_steer_a_terminal(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for odd in ("stray\x1b[31m", "stray\n"):
        torch.save(tensors | {odd: torch.zeros(1), f"model.{odd}": torch.zeros(1)}, path)
        with pytest.raises(WeightsError) as twice:
            load_transformer(CONFIG, path, CPU)
        torch.save(tensors | {odd: torch.zeros(1)}, path)
        with pytest.raises(WeightsError) as stray:
            load_transformer(CONFIG, path, CPU)
        assert str(twice.value).isprintable()
        assert str(stray.value).isprintable()


def test_a_tensor_under_two_names_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors | {"model.head.modulation": torch.zeros(1, 2, 24)}, path)
    with pytest.raises(WeightsError, match=r"model\.safetensors .* head\.modulation is there twice"):
        load_transformer(CONFIG, path, CPU)


def test_weights_errors_are_start_errors() -> None:
    assert issubclass(WeightsError, StartError)


# --- where weights go ---


def test_weights_of_the_wanted_type_are_not_copied(tensors: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = CausalWan(CONFIG)
    load_strictly(model, dict(tensors), Path("here"))
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == {
        name: tensor.data_ptr() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sources_are_let_go_one_by_one(tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    with torch.device("meta"):
        model = CausalWan(CONFIG)
    given, left = {name: nn.Parameter(tensor) for name, tensor in tensors.items()}, []
    unmoved: dict[str, Tensor] = dict(given)
    load_strictly(model, unmoved, Path("here"), dtype=dtype, on_read=lambda *_: left.append(len(unmoved)))
    assert left == list(reversed(range(len(tensors))))
    assert all(parameter.is_leaf and parameter.dtype == dtype for parameter in model.parameters())


# --- progress ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_progress_counts_the_files_bytes_of_what_is_wanted(
    tensors: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    path = tmp_path / "hiar.pt"
    torch.save({"critic": {"w": torch.zeros(999)}, "generator_ema": tensors, "generator": tensors}, path)
    calls: list[tuple[Path, int, int]] = []
    load_transformer(CONFIG, path, CPU, dtype, on_read=lambda *call: calls.append(call))
    done = list(accumulate(tensor.nbytes for tensor in tensors.values()))
    assert calls == [(path, so_far, done[-1]) for so_far in done]


def test_progress_of_shards_is_counted_together(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded(tensors, tmp_path / "transformer")
    for path in (index, index.parent):
        calls: list[tuple[Path, int, int]] = []
        load_transformer(CONFIG, path, CPU, on_read=lambda *call, calls=calls: calls.append(call))
        assert len(calls) == len(tensors)
        total = sum(tensor.nbytes for tensor in tensors.values())
        assert {(where, of) for where, _, of in calls} == {(path, total)}
        assert calls[-1][1] == total


# --- decoders ---

SMALL_TINY = DecoderConfig(kind=DecoderKind.TINY, latent_channels=4, widths=(12, 8, 8, 8))
SMALL_WAN = DecoderConfig(kind=DecoderKind.WAN, dim=4, num_res_blocks=1)
ENCODER = ("encoder.", "conv1.")
BOTH = pytest.mark.parametrize("config", [SMALL_TINY, SMALL_WAN], ids=lambda config: config.kind)


@pytest.fixture
def whole(config: DecoderConfig, tmp_path: Path) -> WanVae | TinyVae:
    torch.manual_seed(3)
    vae = build_decoder(config, with_encoder=True)
    save_file(vae.state_dict(), tmp_path / "decoder.safetensors")
    return vae


@BOTH
def test_a_decoder_is_loaded_without_its_encoder(
    config: DecoderConfig, whole: WanVae | TinyVae, tmp_path: Path
) -> None:
    calls: list[tuple[Path, int, int]] = []
    decoder = load_decoder(config, tmp_path, CPU, on_read=lambda *call: calls.append(call))
    assert isinstance(decoder, nn.Module)
    assert not any(name.startswith(ENCODER) for name in decoder.state_dict())
    wanted = sum(tensor.nbytes for tensor in decoder.state_dict().values())
    assert {(where, of) for where, _, of in calls} == {(tmp_path, wanted)}
    assert calls[-1][1] == wanted
    latents_TCHW = torch.randn(2, config.latent_channels, 2, 2)
    with torch.inference_mode():
        assert torch.equal(decoder.decode(latents_TCHW, None)[0], whole.decode(latents_TCHW, None)[0])


@BOTH
def test_a_decoder_of_scaled_fp8_is_refused_by_its_name(
    config: DecoderConfig, whole: WanVae | TinyVae, tmp_path: Path
) -> None:
    save_file(scaled(whole.state_dict()), tmp_path / "decoder.safetensors")
    with pytest.raises(WeightsError, match="holds scaled fp8 weights"):
        load_decoder(config, tmp_path, CPU)


@BOTH
def test_an_encoder_is_loaded_where_it_is_asked_for(
    config: DecoderConfig, whole: WanVae | TinyVae, tmp_path: Path
) -> None:
    both = load_decoder(config, tmp_path, CPU, with_encoder=True)
    assert isinstance(both, type(whole))
    pixels_TCHW = torch.rand(5, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(both.encode(pixels_TCHW), whole.encode(pixels_TCHW))


@BOTH
def test_files_without_an_encoder(config: DecoderConfig, whole: WanVae | TinyVae, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith(ENCODER)}
    lost = sorted(set(whole.state_dict()) - set(state))
    save_file(state, tmp_path / "decoder.safetensors")
    load_decoder(config, tmp_path, CPU)
    with pytest.raises(WeightsError, match=f"{len(lost)} missing: {lost[0]}, {lost[1]}"):
        load_decoder(config, tmp_path, CPU, with_encoder=True)


@BOTH
def test_a_decoder_wants_all_of_itself_and_nothing_else(
    config: DecoderConfig, whole: WanVae | TinyVae, tmp_path: Path
) -> None:
    state = whole.state_dict()
    lost = next(name for name in sorted(state) if name.startswith("decoder."))
    del state[lost]
    save_file(state | {"decoder.stray": torch.zeros(1)}, tmp_path / "decoder.safetensors")
    with pytest.raises(WeightsError, match=f"1 missing: {lost}; 1 unexpected: decoder.stray$"):
        load_decoder(config, tmp_path, CPU)


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
