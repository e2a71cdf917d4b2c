"""Model folders without a checkpoint: they are read by the strict loader, and the real ones take no disk."""

import importlib
import mmap
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.true_shapes import folder
from benchmarks.true_shapes.folder import LAYOUTS, apparent_bytes, disk_bytes, make_folder
from benchmarks.true_shapes.names import (
    Shapes,
    diffusers_transformer,
    diffusers_vae,
    hugging_face_text,
    text_shapes,
    transformer_shapes,
    vae_shapes,
)
from benchmarks.true_shapes.numbers import SHARPNESS
from benchmarks.true_shapes.sizes import MICRO, PUBLISHED
from benchmarks.true_shapes.tokenizer import END, tokenizer_json
from engine import Manifest, StartError, read_manifest
from engine.config import DecoderConfig, TextConfig, TransformerConfig
from engine.model import reading
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.names import text_names, transformer_names, vae_names
from engine.model.text import load_text_encoder, umt5_encoder
from engine.model.weights import load_decoder, load_transformer, read_tensors

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
pytestmark = pytest.mark.slow


def make(path: Path, **options: Any) -> list[str]:
    lines: list[str] = []
    make_folder(path, say=lines.append, **options)
    return lines


def shapes_of(network: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def shapes_in(path: Path) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}


def headers_alone(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without numbers: at the first look at each the system reads megabytes ahead."""
    with safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in sorted(file.keys())}


def wanted(transformer: TransformerConfig, decoder: DecoderConfig, text: TextConfig) -> tuple[Shapes, Shapes, Shapes]:
    """Shapes of the networks themselves, by their own names."""
    with torch.device("meta"):
        networks = CausalWan(transformer), build_decoder(decoder, with_encoder=True), umt5_encoder(text)
    tied = "encoder.embed_tokens.weight"
    return (
        shapes_of(networks[0]),
        shapes_of(networks[1]),
        {name: shape for name, shape in shapes_of(networks[2]).items() if name != tied},
    )


def files_of(manifest: Manifest) -> tuple[Path, Path, Path]:
    assert manifest.decoder_file is not None and manifest.text_file is not None
    return manifest.transformer_file, manifest.decoder_file, manifest.text_file


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("random", [False, True])
def test_a_micro_folder_is_a_model(tmp_path: Path, layout: str, random: bool) -> None:
    make(tmp_path, layout=layout, size="micro", random=random, random_text=random)
    manifest = read_manifest(tmp_path)
    assert manifest.text is not None and manifest.decoder is not None and manifest.tokenizer_file is not None
    transformer_file, decoder_file, text_file = files_of(manifest)
    model = load_transformer(manifest.transformer, transformer_file, CPU)
    decoder = load_decoder(manifest.decoder, decoder_file, CPU, with_encoder=True)
    text = load_text_encoder(manifest.text, text_file, manifest.tokenizer_file, CPU)
    assert isinstance(decoder, nn.Module)
    for network in (model, decoder):
        assert all(bool(parameter.any()) == random for parameter in network.parameters())
    embedding = text.embed("a red ball: 7")
    assert embedding.shape == (15, manifest.text.dim) and bool(embedding.any()) == random
    rows, columns = manifest.video.sizes[0][1] // 8, manifest.video.sizes[0][0] // 8
    pixels, _ = decoder.decode(torch.randn(3, manifest.transformer.in_dim, rows, columns), None)
    assert pixels.shape == (9, 3, 8 * rows, 8 * columns)
    assert (0.02 < pixels.std() < 0.5) if random else (pixels == 0.5).all()


def test_random_numbers_depend_on_the_name_alone(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        make(path, size="micro", random=True)
    one, other = (read_tensors(path / "hiar.pt") for path in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)
    weights = one["model.blocks.0.ffn.0.weight"]
    assert weights.std() * weights.shape[1] ** 0.5 == pytest.approx(1, abs=0.05)
    assert not torch.equal(one["model.blocks.0.self_attn.q.weight"], one["model.blocks.1.self_attn.q.weight"])
    assert (one["model.blocks.0.self_attn.norm_q.weight"] == SHARPNESS).all()
    assert (one["model.blocks.0.cross_attn.norm_q.weight"] == 1).all() and (
        one["model.blocks.0.norm3.weight"] == 1
    ).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_real_folder_has_every_tensor_and_takes_no_disk(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "load_file", headers_alone)
    lines = make(tmp_path, layout=layout)
    assert disk_bytes(tmp_path) < 50e6
    manifest = read_manifest(tmp_path)
    assert manifest.text is not None and manifest.decoder is not None
    assert not (tmp_path / "manifest.json").exists()
    found = [shapes_in(path) for path in files_of(manifest)]
    assert [len(shapes) for shapes in found] == [825, 194, 242]
    assert [sum(map(prod, shapes.values())) for shapes in found] == [1_418_996_800, 126_892_531, 5_680_910_336]
    ours = [
        transformer_names(found[0]),
        vae_names(found[1], manifest.decoder.num_res_blocks),
        text_names(found[2]),
    ]
    assert ours == list(wanted(manifest.transformer, manifest.decoder, manifest.text))
    copies, text_bytes = (2, 2) if layout == "original" else (1, 4)
    length = copies * 4 * 1_418_996_800 + 4 * 126_892_531 + text_bytes * 5_680_910_336
    assert length < apparent_bytes(tmp_path) < 1.001 * length
    assert lines[0].startswith("hiar.pt: 1650 tensors, 11.35 GB" if layout == "original" else "transformer/")


def test_original_files_are_what_trainers_and_wan_write(tmp_path: Path) -> None:
    make(tmp_path, extra=True)
    # Shared, because a private mapping of 40 GB is refused by machines with less memory.
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        content = torch.load(tmp_path / "hiar.pt", mmap=True, weights_only=True)
    assert list(content) == [
        "generator_ema",
        "generator",
        "critic",
        "step",
        "generator_optimizer",
        "critic_optimizer",
    ]
    name = "model.blocks.29.ffn.2.weight"
    for key in ("generator_ema", "generator", "critic"):
        assert content[key][name].shape == (1536, 8960) and content[key][name].dtype == torch.float32
    assert content["critic_optimizer"]["state"][name]["exp_avg_sq"].shape == (1536, 8960)
    assert (tmp_path / "hiar.pt").stat().st_size > 39e9
    assert disk_bytes(tmp_path) < 50e6
    assert all(tensor.dtype == torch.bfloat16 for tensor in read_tensors(files_of(read_manifest(tmp_path))[2]).values())


@LIBRARY_WARNINGS
def test_diffusers_names_are_those_of_diffusers() -> None:
    diffusers: Any = importlib.import_module("diffusers")  # untyped, and slow to import
    with torch.device("meta"):
        transformer = diffusers.WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30
        )
        vae = diffusers.AutoencoderKLWan()
    assert diffusers_transformer(transformer_shapes(PUBLISHED.transformer)) == shapes_of(transformer)
    assert diffusers_vae(vae_shapes(PUBLISHED.decoder), PUBLISHED.decoder.num_res_blocks) == shapes_of(vae)
    text = hugging_face_text(text_shapes(PUBLISHED.text))
    assert text == wanted(MICRO.transformer, MICRO.decoder, PUBLISHED.text)[2]


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        make(tmp_path, size="micro")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "notes.txt").unlink()
    make(tmp_path, size="micro")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        make(tmp_path, size="micro", layout="diffusers")
    assert (tmp_path / "hiar.pt").exists()


def test_a_folder_made_here_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path, size="micro", layout="diffusers")
    make(tmp_path, size="micro")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert read_manifest(tmp_path).transformer_file.name == "hiar.pt"


def test_a_folder_that_was_cut_short_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "fill", full)
        with pytest.raises(OSError, match="full"):
            make(tmp_path, size="micro", random=True)
    with pytest.raises(StartError, match="holds no model"):
        read_manifest(tmp_path)
    make(tmp_path, size="micro")
    assert read_manifest(tmp_path).transformer == MICRO.transformer


def test_extra_keys_belong_to_trainers_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hiar\.pt"):
        make(tmp_path, size="micro", layout="diffusers", extra=True)


def test_the_tokenizer_has_no_token_beyond_the_smallest_table() -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415 - of the text encoder alone

    tokenizer = Tokenizer.from_str(tokenizer_json())
    assert tokenizer.token_to_id(END) == 1 and tokenizer.get_vocab_size() <= MICRO.text.vocab_size
    assert len(set(tokenizer.encode("Red ball", add_special_tokens=False).ids)) > 5


def test_the_command_says_what_it_makes_and_needs_no_web_package(tmp_path: Path) -> None:
    names = ("fastapi", "uvicorn", "pydantic", "av", "transformers", "ftfy")
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({names!r})); "
        f"sys.argv[1:] = [{str(tmp_path / 'model')!r}, '--size', 'micro', '--random']; "
        "runpy.run_module('benchmarks.true_shapes', run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "hiar.pt" in answer.stdout and "on the disk, made in" in answer.stdout
    (tmp_path / "model" / "mine").write_text("")
    command = [sys.executable, "-m", "benchmarks.true_shapes", str(tmp_path / "model")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("true_shapes: ")
