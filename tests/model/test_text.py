"""Prompts: cleaning, tokens, and the encoder against recorded embeddings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engine.config import TextConfig
from engine.errors import StartError, WeightsError
from engine.manifest import read_manifest
from engine.model.text import TextEncoder, clean, load_encoder, load_text_encoder, load_tokenizer

ROOT = Path(__file__).parents[2]
TINY = ROOT / "models" / "tiny"
GOLDEN = ROOT / "tests" / "data" / "golden" / "public-text"
CPU = torch.device("cpu")
END = "</s>"


@pytest.fixture(scope="module")
def golden_config() -> TextConfig:
    return TextConfig(**json.loads((GOLDEN / "config.json").read_text()))


@pytest.fixture(scope="module")
def tiny() -> TextEncoder:
    manifest = read_manifest(TINY)
    assert manifest.text is not None
    assert manifest.text_file is not None
    assert manifest.tokenizer_file is not None
    return load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, CPU)


def test_embeddings_repeat_the_recorded_reference(golden_config: TextConfig) -> None:
    encoder = load_encoder(golden_config, GOLDEN / "text_encoder.safetensors", CPU, torch.float32)
    text = TextEncoder(golden_config, encoder, load_tokenizer(TINY))
    recorded = load_file(GOLDEN / "encoding.safetensors")
    for ids, mask, expected in zip(
        recorded["token_ids"], recorded["attention_mask"], recorded["embeddings"], strict=True
    ):
        num_tokens = int(mask.sum())
        ours = text.embed_tokens(ids[:num_tokens])
        assert ours.shape == (num_tokens, golden_config.dim)
        assert float((ours - expected[:num_tokens]).abs().max()) <= 1e-4
        assert not expected[num_tokens:].any()


def test_hugging_face_names_give_the_same_encoder(golden_config: TextConfig, tmp_path: Path) -> None:
    original = load_encoder(golden_config, GOLDEN / "text_encoder.safetensors", CPU, torch.float32)
    state = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    whole, tied = tmp_path / "whole.safetensors", tmp_path / "tied.safetensors"
    save_file(state, whole)
    save_file({name: tensor for name, tensor in state.items() if name != "encoder.embed_tokens.weight"}, tied)
    for path in (whole, tied):
        loaded = load_encoder(golden_config, path, CPU, torch.float32).state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_embedding_is_in_memory_once(golden_config: TextConfig, dtype: torch.dtype) -> None:
    path = GOLDEN / "text_encoder.safetensors"
    calls: list[tuple[Path, int, int]] = []
    encoder = load_encoder(golden_config, path, CPU, dtype, on_read=lambda *call: calls.append(call))
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    in_file = sum(tensor.nbytes for tensor in load_file(path).values())
    assert calls[-1] == (path, in_file, in_file)
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in encoder.state_dict().values()}
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in encoder.state_dict().values()}
    assert sum(tensors.values()) == in_file * dtype.itemsize // 4
    if dtype == torch.bfloat16:  # else all lie in the file's one storage
        assert sum(tensor.untyped_storage().nbytes() for tensor in storages.values()) == in_file // 2


def test_a_tokenizer_among_the_tensors_is_passed_over(golden_config: TextConfig, tmp_path: Path) -> None:
    tensors, path = load_file(GOLDEN / "text_encoder.safetensors"), tmp_path / "umt5.safetensors"
    save_file(tensors | {"spiece_model": torch.zeros(10, dtype=torch.uint8)}, path)
    loaded = load_encoder(golden_config, path, CPU, torch.float32).state_dict()
    original = load_encoder(golden_config, GOLDEN / "text_encoder.safetensors", CPU, torch.float32).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.items())
    save_file(tensors | {"stray": torch.zeros(10, dtype=torch.uint8)}, path)
    with pytest.raises(WeightsError, match="1 unexpected: stray"):
        load_encoder(golden_config, path, CPU, torch.float32)


def test_scaled_fp8_is_refused_by_its_name(golden_config: TextConfig, tmp_path: Path) -> None:
    tensors, path = load_file(GOLDEN / "text_encoder.safetensors"), tmp_path / "umt5.safetensors"
    save_file(tensors | {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}, path)
    with pytest.raises(WeightsError, match=r"umt5\.safetensors holds scaled fp8 weights"):
        load_encoder(golden_config, path, CPU, torch.float32)


def test_an_encoder_in_two_layouts_is_refused(golden_config: TextConfig, tmp_path: Path) -> None:
    tensors, path = load_file(GOLDEN / "text_encoder.safetensors"), tmp_path / "umt5.safetensors"
    both = {"token_embedding.weight", "shared.weight"}
    save_file(tensors | {name: torch.zeros(1) for name in both - tensors.keys()}, path)
    with pytest.raises(WeightsError, match=r"umt5\.safetensors does not fit .* shared\.weight is there twice"):
        load_encoder(golden_config, path, CPU, torch.float32)


def test_misfitting_encoder_is_refused(golden_config: TextConfig) -> None:
    wider = replace(golden_config, dim_ffn=100)
    with pytest.raises(WeightsError, match=r"DenseReluDense\.wi_0\.weight is \[96, 48\], needed \[100, 48\]"):
        load_encoder(wider, GOLDEN / "text_encoder.safetensors", CPU, torch.float32)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red Boat", "A red Boat"),
        ("  a\t\tboat \r\n at\u00a0sea\u3000now \n", "a boat at sea now"),
        ("salt &amp; pepper", "salt & pepper"),
        ("<salt &amp;amp; pepper>", "<salt & pepper>"),
        ("<a &amp;lt; b>", "<a < b>"),
        ("<&amp;nbsp; a>", "< a>"),
        ("schÃ¶n", "schön"),
        ("“quoted”", '"quoted"'),
        ("\ufb01sh", "fish"),
        ("一只猫", "一只猫"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_cleaning(prompt: str, expected: str) -> None:
    assert clean(prompt) == expected


def test_tokens_end_with_the_end_token(tiny: TextEncoder) -> None:
    tokenizer = load_tokenizer(TINY)
    ids = tiny.tokens("a  boat ")
    assert ids == [*tokenizer.encode("a boat", add_special_tokens=False).ids, tokenizer.token_to_id(END)]
    assert tiny.tokens("") == [tokenizer.token_to_id(END)]


@pytest.mark.parametrize("beyond", [-2, -1, 0, 1, 5000])
def test_long_prompts_are_cut_before_the_end_token(tiny: TextEncoder, beyond: int) -> None:
    text, tokenizer = read_manifest(TINY).text, load_tokenizer(TINY)
    assert text is not None
    end = tokenizer.token_to_id(END)
    prompt = "x" * (text.text_len + beyond)
    ids = tiny.tokens(prompt)
    assert ids == [*tokenizer.encode(prompt, add_special_tokens=False).ids[: text.text_len - 1], end]
    assert end not in ids[:-1]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_every_prompt_gives_tokens(prompt: str) -> None:
    tokenizer = load_tokenizer(TINY)
    ids = tokenizer.encode(clean(prompt), add_special_tokens=False).ids
    assert all(0 <= token < tokenizer.get_vocab_size() for token in ids)
    unknown = tokenizer.token_to_id("<unk>")
    assert unknown is None or unknown not in ids
    assert bool(ids) == bool(clean(prompt))


@pytest.mark.parametrize(
    "prompt", ["\ud800", "a\udfffb", "&#xD800;", "\x00", "🎬👩‍👩‍👧", "\u202eabc", "\uffff", "\U0010ffff"]
)
def test_odd_characters_give_an_embedding(tiny: TextEncoder, prompt: str) -> None:
    embedding = tiny.embed(prompt)
    assert embedding.shape == (len(tiny.tokens(prompt)), 128)
    assert bool(embedding.isfinite().all())


def test_a_prompt_is_embedded_at_its_true_length(tiny: TextEncoder) -> None:
    embedding = tiny.embed("a boat")
    assert torch.equal(embedding, tiny.embed("  a   boat"))
    assert not torch.equal(embedding, tiny.embed("a goat"))


def test_tokenizer_by_file_or_folder() -> None:
    by_file, by_folder = load_tokenizer(TINY / "tokenizer.json"), load_tokenizer(TINY)
    assert by_file.to_str() == by_folder.to_str()


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_missing_tokenizer(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartError, match=r"tokenizer\.json does not exist"):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "\udcff"])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StartError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_truncated_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    whole = (TINY / "tokenizer.json").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StartError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_tokenizer_without_an_end_token(golden_config: TextConfig, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text((TINY / "tokenizer.json").read_text().replace(END, "<stop>"))
    encoder = load_encoder(golden_config, GOLDEN / "text_encoder.safetensors", CPU, torch.float32)
    with pytest.raises(StartError, match=f"no {END} token"):
        TextEncoder(golden_config, encoder, load_tokenizer(path))
