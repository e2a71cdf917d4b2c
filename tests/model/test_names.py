"""Tensor names: every layout people have becomes the names our modules use."""

import pytest
import torch

from engine.config import DecoderConfig, DecoderKind, TransformerConfig
from engine.model.dit import CausalWan
from engine.model.names import are_scaled_fp8, part_for_pictures, text_names, transformer_names, vae_names
from engine.model.vae import WanVae

SMALL = TransformerConfig(dim=24, ffn_dim=40, num_heads=2, num_layers=2, text_dim=8, text_len=4, freq_dim=8)
LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def transformer_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in CausalWan(config).state_dict().items()}


def test_original_names_stay() -> None:
    shapes = transformer_shapes(SMALL)
    assert transformer_names(shapes) == shapes


@pytest.mark.parametrize(
    "name",
    [
        "model.blocks.0.self_attn.q.weight",
        "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.self_attn.q.weight",
        "_fsdp_wrapped_module.model.blocks.0._checkpoint_wrapped_module.self_attn.q.weight",
        "_orig_mod.blocks.0.self_attn._orig_mod.q.weight",
        "diffusion_model.blocks.0.self_attn.q.weight",
        "model.diffusion_model.blocks.0.self_attn.q.weight",
        "module.blocks.0.self_attn.q.weight",
        "module.model.blocks.0.self_attn.q.weight",
        "transformer.blocks.0.self_attn.q.weight",
        "net.blocks.0.self_attn.q.weight",
        "pipe.dit.blocks.0.self_attn.q.weight",
        "base_model.model.blocks.0.self_attn.q.weight",
        "generator.blocks.0.self_attn.q.weight",
        "generator.model.blocks.0.self_attn.q.weight",
        "generator.model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.self_attn.q.weight",
        "module.generator._orig_mod.model.blocks.0._checkpoint_wrapped_module._orig_mod.self_attn.q.weight",
        "model.model.blocks.0.self_attn.q.weight",
        "model.model.model.diffusion_model.blocks.0.self_attn.q.weight",
        "_orig_mod.module._fsdp_wrapped_module.model._checkpoint_wrapped_module.blocks.0.self_attn.q.weight",
        "blocks.0.self_attn.q.weight",
    ],
)
def test_trainer_wrappers_go(name: str) -> None:
    assert transformer_names({name: 1}) == {"blocks.0.self_attn.q.weight": 1}


PREFIXES = ("module.", "model.", "generator.", "diffusion_model.", "transformer.", "net.")
WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")


@pytest.mark.parametrize("outer", [*PREFIXES, *WRAPPERS])
@pytest.mark.parametrize("inner", ["", *PREFIXES, *WRAPPERS])
def test_no_name_of_the_model_is_mistaken_for_a_prefix(outer: str, inner: str) -> None:
    shapes = transformer_shapes(SMALL)
    learned = {"position_embedding": (24, 2, 2), "frame_embedding": (3, 24)}
    assert transformer_names({f"{outer}{inner}{name}": shape for name, shape in (shapes | learned).items()}) == (
        shapes | learned
    )


def test_names_of_exporters_and_of_diffusers_together() -> None:
    theirs = {"model.condition_embedder.time_proj.bias": 0, "model.blocks.0.attn1.to_q.weight": 1}
    assert transformer_names(theirs) == {"time_projection.1.bias": 0, "blocks.0.self_attn.q.weight": 1}


@pytest.mark.parametrize("prefix", ["model.", "diffusion_model.", "_orig_mod."])
def test_two_tensors_of_one_name_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=rf"^head\.modulation is there twice, once as {prefix}head\.modulation$"):
        transformer_names({"head.modulation": 1, f"{prefix}head.modulation": 2})


def test_two_layouts_in_one_file_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^head\.modulation is there twice, once as scale_shift_table$"):
        transformer_names({"condition_embedder.time_proj.bias": 0, "head.modulation": 1, "scale_shift_table": 2})
    with pytest.raises(ValueError, match=r"^shared\.weight is there twice"):
        text_names({"token_embedding.weight": 0, "shared.weight": 1})
    with pytest.raises(ValueError, match=r"^conv2\.weight is there twice"):
        vae_names({"post_quant_conv.weight": 0, "conv2.weight": 1}, 2)


@pytest.mark.parametrize("name", ["scaled_fp8", "model.scaled_fp8", "blocks.0.o.scale_weight", "a.weight_scale"])
def test_scaled_weights_are_told_by_their_names(name: str) -> None:
    assert are_scaled_fp8(["blocks.0.o.weight", name])


@pytest.mark.parametrize(
    "name",
    [
        "img_emb.proj.0.weight",
        "blocks.0.cross_attn.k_img.weight",
        "blocks.0.cross_attn.norm_k_img.weight",
        "vace_blocks.0.before_proj.weight",
        "vace_patch_embedding.weight",
        "condition_embedder.image_embedder.norm1.weight",
        "blocks.0.attn2.add_k_proj.weight",
        "ref_conv.weight",
    ],
)
def test_variants_for_pictures_are_told_by_their_names(name: str) -> None:
    assert part_for_pictures(["blocks.0.o.weight", name]) == name
    assert part_for_pictures(transformer_shapes(SMALL)) is None


def test_no_wanted_name_is_taken_for_a_scale() -> None:
    vae = WanVae(DecoderConfig(kind=DecoderKind.WAN, dim=4), with_encoder=True).state_dict()
    assert not are_scaled_fp8([*transformer_shapes(SMALL), *vae, "scale_shift_table", "blocks.0.scale_shift_table"])


@LIBRARY_WARNINGS
@pytest.mark.slow
def test_all_published_diffusers_names_map() -> None:
    from diffusers import WanTransformer3DModel  # noqa: PLC0415

    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30
        ).state_dict()
    published = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)
    ours = transformer_names({name: tuple(tensor.shape) for name, tensor in theirs.items()})
    assert ours == transformer_shapes(published)
    assert len(ours) == 825


def test_pre_cross_attention_norm_is_norm3() -> None:
    theirs = {"condition_embedder.time_proj.bias": 0, "blocks.1.norm2.weight": 1, "blocks.1.scale_shift_table": 2}
    theirs |= {"scale_shift_table": 3, "blocks.1.attn2.to_out.0.bias": 4, "blocks.1.attn1.norm_q.weight": 5}
    assert transformer_names(theirs) == {
        "time_projection.1.bias": 0,
        "blocks.1.norm3.weight": 1,
        "blocks.1.modulation": 2,
        "head.modulation": 3,
        "blocks.1.cross_attn.o.bias": 4,
        "blocks.1.self_attn.norm_q.weight": 5,
    }


def test_text_names_of_the_original() -> None:
    theirs = {
        "token_embedding.weight": 0,
        "norm.weight": 1,
        "blocks.11.norm1.weight": 2,
        "blocks.11.norm2.weight": 3,
        "blocks.11.attn.o.weight": 4,
        "blocks.11.pos_embedding.embedding.weight": 5,
        "blocks.11.ffn.gate.0.weight": 6,
        "blocks.11.ffn.fc1.weight": 7,
        "blocks.11.ffn.fc2.weight": 8,
    }
    layer = "encoder.block.11.layer"
    expected = {
        "shared.weight": 0,
        "encoder.final_layer_norm.weight": 1,
        f"{layer}.0.layer_norm.weight": 2,
        f"{layer}.1.layer_norm.weight": 3,
        f"{layer}.0.SelfAttention.o.weight": 4,
        f"{layer}.0.SelfAttention.relative_attention_bias.weight": 5,
        f"{layer}.1.DenseReluDense.wi_0.weight": 6,
        f"{layer}.1.DenseReluDense.wi_1.weight": 7,
        f"{layer}.1.DenseReluDense.wo.weight": 8,
    }
    assert text_names(theirs) == expected
    assert text_names(theirs | {"spiece_model": 9}) == expected
    assert text_names(expected | {"spiece_model": 9, "encoder.embed_tokens.weight": 0}) == expected
    tied_alone = {"encoder.embed_tokens.weight" if name == "shared.weight" else name: n for name, n in expected.items()}
    assert text_names(tied_alone) == expected


@LIBRARY_WARNINGS
@pytest.mark.slow
@pytest.mark.parametrize(("dim", "num_res_blocks"), [(8, 1), (8, 2), (96, 2)])
def test_diffusers_vae_names_map(dim: int, num_res_blocks: int) -> None:
    from diffusers import AutoencoderKLWan  # noqa: PLC0415

    config = DecoderConfig(kind=DecoderKind.WAN, dim=dim, num_res_blocks=num_res_blocks)
    with torch.device("meta"):
        theirs = AutoencoderKLWan(base_dim=dim, num_res_blocks=num_res_blocks).state_dict()
        ours = WanVae(config, with_encoder=True).state_dict()
    original = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    renamed = vae_names({name: tuple(tensor.shape) for name, tensor in theirs.items()}, num_res_blocks)
    assert renamed == original
    assert vae_names(original, num_res_blocks) == original
    if (dim, num_res_blocks) == (96, 2):
        assert len(renamed) == 194
