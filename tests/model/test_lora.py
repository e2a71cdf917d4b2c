"""LoRAs become other weights: W + scale (alpha / rank) B A, under every naming, with every way to state alpha."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import EngineConfig, Manifest
from engine.config import Lora, RolloutConfig, VideoConfig
from engine.model.weights import load_transformer
from engine.stage import build
from engine.stage.progress import Progress
from tests.model.loras import (
    CONFIG,
    RANK,
    Halves,
    assert_near,
    base_tensors,
    expected,
    linear_halves,
    named,
    peft,
    save,
)

CPU = torch.device("cpu")
PEFT_SETTINGS = {"peft_type": "LORA", "r": RANK, "lora_alpha": 12, "use_rslora": False, "alpha_pattern": {}}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return base_tensors()


@pytest.fixture(scope="module")
def halves(tensors: dict[str, Tensor]) -> Halves:
    return linear_halves(tensors)


@pytest.fixture
def base(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    return save({"generator": {f"model.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "base.pt")


def diffusers_module(module: str) -> str:
    for ours, theirs in (("self_attn.", "attn1."), ("cross_attn.", "attn2."), ("ffn.0", "ffn.net.0.proj")):
        module = module.replace(ours, theirs)
    module = module.replace("ffn.2", "ffn.net.2")
    head, _, last = module.rpartition(".")
    return f"{head}.{ {'q': 'to_q', 'k': 'to_k', 'v': 'to_v', 'o': 'to_out.0'}.get(last, last) }"


def underscored(module: str) -> str:
    return module.replace(".", "_")


# --- names ---


def test_the_layout_of_longlive(tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path) -> None:
    assert len(halves) == 10 * CONFIG.num_layers
    path = save({"generator_lora": peft(halves)}, tmp_path / "lora.pt")
    for key in (None, "generator_lora"):
        model = load_transformer(CONFIG, base, CPU, key="generator", loras=[Lora(file=path, key=key)])
        assert_near(model, expected(tensors, halves))
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "naming",
    [
        "base_model.model.{}.lora_A.weight base_model.model.{}.lora_B.weight",
        "base_model.model.{}.lora_A.default.weight base_model.model.{}.lora_B.default.weight",
        "base_model.model.model.{}.lora_A.weight base_model.model.model.{}.lora_B.weight",
        "generator.model._fsdp_wrapped_module.{}.lora_A.weight generator.model._fsdp_wrapped_module.{}.lora_B.weight",
        "{}.lora_A.default.weight {}.lora_B.default.weight",
        "pipe.dit.{}.lora_A.weight pipe.dit.{}.lora_B.weight",
        "diffusion_model.{}.lora_down.weight diffusion_model.{}.lora_up.weight",
        "model.diffusion_model.{}.lora_A.weight model.diffusion_model.{}.lora_B.weight",
        "transformer.{}.lora.down.weight transformer.{}.lora.up.weight",
        "lora_unet_{}.lora_down.weight lora_unet_{}.lora_up.weight",
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_names_of_trainers_and_exports(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path, naming: str, suffix: str
) -> None:
    rename = underscored if naming.startswith("lora_unet_") else str
    path = save(named(halves, *naming.split(" "), rename), tmp_path / f"lora{suffix}")
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)]), expected(tensors, halves))


@pytest.mark.parametrize("prefix", ["", "transformer.", "diffusion_model."])
def test_names_of_diffusers(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path, prefix: str
) -> None:
    content = named(halves, f"{prefix}{{}}.lora_A.weight", f"{prefix}{{}}.lora_B.weight", diffusers_module)
    assert f"{prefix}blocks.1.attn2.to_out.0.lora_B.weight" in content
    path = save(content, tmp_path / "pytorch_lora_weights.safetensors")
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)]), expected(tensors, halves))


def test_layers_around_the_blocks_and_convolutions(tensors: dict[str, Tensor], base: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(5)
    patch_down, patch_up = torch.randn(RANK, 16, 1, 2, 2, generator=random), torch.randn(24, RANK, generator=random)
    others = {
        name: (torch.randn(RANK, tensors[f"{name}.weight"].shape[1]), torch.randn(len(tensors[f"{name}.weight"]), RANK))
        for name in ("head.head", "text_embedding.0", "time_embedding.2", "time_projection.1")
    }
    content = peft(others, "diffusion_model.") | {
        "diffusion_model.patch_embedding.lora_down.weight": patch_down,
        "diffusion_model.patch_embedding.lora_up.weight": patch_up[:, :, None, None, None],
    }
    wanted = expected(tensors, others)
    change = patch_up @ patch_down.flatten(1)
    wanted["patch_embedding.weight"] = tensors["patch_embedding.weight"] + change.view(24, 16, 1, 2, 2)
    path = save(content, tmp_path / "lora.safetensors")
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)]), wanted)


def test_differences_are_added(tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(6)
    changed = {
        "blocks.0.norm3.diff": "blocks.0.norm3.weight",
        "blocks.0.self_attn.norm_q.diff": "blocks.0.self_attn.norm_q.weight",
        "blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "blocks.1.diff_m": "blocks.1.modulation",
        "head.modulation.diff": "head.modulation",
    }
    values = {theirs: torch.randn(tensors[ours].shape, generator=random) for theirs, ours in changed.items()}
    content = peft(halves, "diffusion_model.") | {f"diffusion_model.{name}": value for name, value in values.items()}
    wanted = expected(tensors, halves, 0.5)
    for theirs, ours in changed.items():
        wanted[ours] = tensors[ours] + 0.5 * values[theirs]
    path = save(content, tmp_path / "lora.safetensors")
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path, scale=0.5)]), wanted)


# --- alpha ---


def test_alpha_beside_each_weight(tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path) -> None:
    alphas = {f"diffusion_model.{module}.alpha": torch.tensor(float(n)) for n, module in enumerate(halves)}
    wanted = dict(tensors)
    for number, module in enumerate(halves):
        wanted |= {f"{module}.weight": expected(tensors, halves, number / RANK)[f"{module}.weight"]}
    path = save(peft(halves, "diffusion_model.") | alphas, tmp_path / "lora.safetensors", {"lora_alpha": "99"})
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)]), wanted)


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({"lora_alpha": "6"}, 6),
        ({"ss_network_alpha": "1.5", "ss_network_dim": "3"}, 1.5),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 6, "transformer.r": RANK})}, 6),
        ({"format": "pt"}, RANK),
    ],
)
def test_alpha_in_the_files_metadata(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path, metadata: dict[str, str], alpha: float
) -> None:
    path = save(peft(halves), tmp_path / "lora.safetensors", metadata)
    wanted = expected(tensors, halves, alpha / RANK)
    assert_near(load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)]), wanted)


@pytest.mark.parametrize(("metadata", "alpha"), [({"format": "pt"}, 10), ({"lora_alpha": "6"}, 6)])
def test_alpha_of_whoever_knows_it_is_for_files_that_do_not_tell(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path, metadata: dict[str, str], alpha: float
) -> None:
    path = save(peft(halves), tmp_path / "lora.safetensors", metadata)
    model = load_transformer(CONFIG, base, CPU, loras=[Lora(file=path, alpha=10.0)])
    assert_near(model, expected(tensors, halves, alpha / RANK))


@pytest.mark.parametrize(
    ("stated", "factor"),
    [
        ({}, 12 / RANK),
        ({"use_rslora": True}, 12 / RANK**0.5),
        ({"lora_alpha": None}, 1),
        ({"r": 99, "rank_pattern": {"q": RANK}}, 12 / RANK),
    ],
)
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "lora.pt"])
def test_alpha_in_the_settings_beside(
    tensors: dict[str, Tensor],
    halves: Halves,
    base: Path,
    tmp_path: Path,
    stated: dict[str, Any],
    factor: float,
    name: str,
) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    path = save(peft(halves), folder / name)
    (folder / "adapter_config.json").write_text(json.dumps(PEFT_SETTINGS | stated))
    for given in [path, folder] if path.suffix == ".safetensors" else [path]:
        model = load_transformer(CONFIG, base, CPU, loras=[Lora(file=given)])
        assert_near(model, expected(tensors, halves, factor))


# --- several, types, memory ---


def test_several_are_added_up_with_their_scales(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path
) -> None:
    other = dict(list(linear_halves(tensors, seed=3, rank=2).items())[:4])
    first, second = save(peft(halves), tmp_path / "a.pt"), save(peft(other), tmp_path / "b.safetensors")
    loras = [Lora(file=first, scale=0.75), Lora(file=second, scale=-0.5)]
    wanted = expected(expected(tensors, halves, 0.75), other, -0.5)
    assert_near(load_transformer(CONFIG, base, CPU, loras=loras), wanted)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_sum_is_rounded_once(
    tensors: dict[str, Tensor], halves: Halves, tmp_path: Path, stored: torch.dtype
) -> None:
    kept = {name: tensor.to(stored) for name, tensor in tensors.items()}
    base = save(kept, tmp_path / "base.safetensors")
    small = {module: (down.bfloat16(), up.bfloat16() / 64) for module, (down, up) in halves.items()}
    path = save(peft(small), tmp_path / "lora.safetensors")
    found = load_transformer(CONFIG, base, CPU, torch.bfloat16, loras=[Lora(file=path)]).state_dict()
    wanted = expected({name: tensor.float() for name, tensor in kept.items()}, small)
    off = [float((found[name].float() - t).abs().max() / t.abs().max()) for name, t in wanted.items()]
    assert max(off) < 2**-8, "half a step of bfloat16, and the sum's own rounding"


def test_progress_counts_the_models_own_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    base = save(tensors, tmp_path / "base.safetensors")
    module = "blocks.0.self_attn.q"
    path = save(peft({module: (torch.randn(RANK, 24), torch.randn(24, RANK))}), tmp_path / "lora.safetensors")
    calls: list[tuple[Path, int, int]] = []
    load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)], on_read=lambda *call: calls.append(call))
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert len(calls) == len(tensors)
    assert calls[-1] == (base, total, total)


def test_parameters_of_a_trainer_are_merged_without_a_graph(
    tensors: dict[str, Tensor], halves: Halves, base: Path, tmp_path: Path
) -> None:
    kept = {name: torch.nn.Parameter(tensor) for name, tensor in peft(halves).items()}
    path = save(kept, tmp_path / "lora.pt")
    model = load_transformer(CONFIG, base, CPU, loras=[Lora(file=path)])
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in model.parameters())


def test_a_workers_network_has_the_manifests_key_and_loras(
    tensors: dict[str, Tensor], halves: Halves, tmp_path: Path
) -> None:
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    base = save({"generator": tensors, "generator_ema": other}, tmp_path / "base.pt")
    path = save({"generator_lora": peft(halves)}, tmp_path / "lora.pt")
    manifest = Manifest(
        name="micro",
        transformer=CONFIG,
        rollout=RolloutConfig(),
        video=VideoConfig(sizes=((64, 64),)),
        transformer_file=base,
    )
    for chosen, wanted in (
        (manifest, other),
        (replace(manifest, transformer_key="generator"), tensors),
        (replace(manifest, loras=(Lora(file=path),)), expected(other, halves)),
    ):
        model = build.transformer(EngineConfig(manifest=chosen, devices=("cpu",)), CPU, Progress(lambda _: None))
        assert_near(model, wanted)
