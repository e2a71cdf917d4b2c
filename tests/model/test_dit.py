"""The batched, paged transformer against the oracle, diffusers, exact angles and the published sizes."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, getcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.config import RolloutConfig, TransformerConfig
from engine.law.schedule import Level, noise_levels
from engine.law.step import predict_x0
from engine.model.dit import CausalWan
from engine.model.names import transformer_names
from engine.model.rope import pairs_by_axis, rotations
from engine.model.segments import PagedCache, SegmentBatch, TextContext
from engine.model.weights import load_strictly, load_transformer
from engine.oracle import exact_rotations
from engine.stage.noise import KeyedNoise
from engine.stage.pages import PagePool
from tests.model.oracle_pass import BlockSeen, as_in_pages, oracle_pass

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "public-a"
KEYS = ("dim", "ffn_dim", "freq_dim", "text_dim", "text_len", "num_heads", "num_layers", "in_dim")
CPU = torch.device("cpu")
SHAPE = (3, 16, 8, 12)
GRID = (3, 4, 6)
NUM_TOKENS = 3 * 4 * 6
PUBLISHED = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)
LEVELS = noise_levels(RolloutConfig())
noise = KeyedNoise(CPU)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model() -> CausalWan:
    recorded = json.loads((GOLDEN / "config.json").read_text())
    return load_transformer(
        TransformerConfig(**{key: recorded[key] for key in KEYS}), GOLDEN / "transformer.safetensors", CPU
    )


@pytest.fixture(scope="module")
def prompt() -> Tensor:
    """A padded prompt embedding [text_len, text_dim]; 7 rows are valid."""
    return load_file(GOLDEN / "rollout.safetensors")["context"]


def make_pool(model: CausalWan, num_pages: int, spare_tokens: int = 0) -> PagePool:
    return PagePool(
        num_pages=num_pages,
        num_layers=model.config.num_layers,
        page_tokens=NUM_TOKENS + spare_tokens,
        num_heads=model.config.num_heads,
        head_dim=model.config.head_dim,
        dtype=torch.float32,
        device=CPU,
        poison=True,
    )


def latents(block: int, stage: int = 0) -> Tensor:
    return noise(11, block, stage, SHAPE)


def make_batch(
    segments: list[tuple[Tensor, Level, int, tuple[int, ...]]], contexts: list[TextContext], writes: tuple[int, ...]
) -> SegmentBatch:
    return SegmentBatch(
        latents_GFCYX=torch.stack([segment[0] for segment in segments]),
        timesteps_G=torch.tensor([segment[1].timestep for segment in segments], dtype=torch.float32),
        starts_G=torch.tensor([segment[2] * len(segment[0]) for segment in segments]),
        contexts=tuple(contexts),
        page_lists=tuple(segment[3] for segment in segments),
        write_pages=writes,
    )


def error_of(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    assert bool(ours.isfinite().all())
    return float((ours - expected).abs().max())


def put(pool: PagePool, page: int, own: BlockSeen) -> None:
    for layer, (keys, values) in enumerate(as_in_pages(own, GRID)):
        pool.cache.keys_NPLHK[layer, page, :NUM_TOKENS] = keys
        pool.cache.values_NPLHK[layer, page, :NUM_TOKENS] = values


# --- against the oracle ---


@pytest.mark.parametrize("stage", range(4))
def test_denoise_pass_without_history(model: CausalWan, prompt: Tensor, stage: int) -> None:
    expected, _ = oracle_pass(model, latents(0), LEVELS[stage], 0, [], prompt)
    batch = make_batch([(latents(0), LEVELS[stage], 0, ())], [model.encode_context(prompt[:7])], ())
    flow = model(batch, make_pool(model, 2).cache)
    assert flow.shape == (1, *SHAPE)
    assert error_of(flow[0], expected) < 1e-5


@pytest.mark.parametrize("grid", [(4, 6), (8, 8)], ids=["its own size", "stretched"])
def test_learned_positions_are_added_to_every_frame(model: CausalWan, prompt: Tensor, grid: tuple[int, int]) -> None:
    placed = CausalWan(replace(model.config, position_grid=grid))
    table = torch.randn(model.config.dim, *grid, generator=torch.Generator().manual_seed(2))
    placed.load_state_dict(model.state_dict() | {"position_embedding": table})
    expected, _ = oracle_pass(placed, latents(0), LEVELS[1], 0, [], prompt)
    batch = make_batch([(latents(0), LEVELS[1], 0, ())], [placed.encode_context(prompt[:7])], ())
    flow = placed(batch, make_pool(placed, 2).cache)
    assert error_of(flow[0], expected) < 1e-5
    assert error_of(flow, model(batch, make_pool(model, 2).cache)) > 0.1


@pytest.mark.parametrize("block", [0, 1, 2, 9])
def test_learned_positions_in_time_end_with_the_last_known_block(model: CausalWan, prompt: Tensor, block: int) -> None:
    timed = CausalWan(replace(model.config, position_frames=6))
    table = torch.randn(6, model.config.dim, generator=torch.Generator().manual_seed(2))
    timed.load_state_dict(model.state_dict() | {"frame_embedding": table})
    expected, _ = oracle_pass(timed, latents(0), LEVELS[1], block, [], prompt)
    batch = make_batch([(latents(0), LEVELS[1], block, ())], [timed.encode_context(prompt[:7])], ())
    flow = timed(batch, make_pool(timed, 2).cache)
    assert error_of(flow[0], expected) < 1e-5
    as_second = make_batch([(latents(0), LEVELS[1], 1, ())], [timed.encode_context(prompt[:7])], ())
    differs = error_of(flow, timed(as_second, make_pool(timed, 2).cache)) > 0.1
    assert differs == (block == 0)


@pytest.mark.parametrize("level", [LEVELS[0], LEVELS[1], LEVELS[-1]])
def test_a_model_of_clean_blocks_gives_the_flow_to_them(model: CausalWan, prompt: Tensor, level: Level) -> None:
    told = CausalWan(replace(model.config, predicts_clean=True))
    told.load_state_dict(model.state_dict())
    expected, _ = oracle_pass(told, latents(0), level, 0, [], prompt)
    batch = make_batch([(latents(0), level, 0, ())], [told.encode_context(prompt[:7])], ())
    flow = told(batch, make_pool(told, 1).cache)
    clean = model(batch, make_pool(model, 1).cache)
    if level.sigma == 0:
        assert bool(flow.isfinite().all())  # a clean block has no flow to the clean block
        return
    assert error_of(flow[0], expected) < 1e-4
    assert error_of(predict_x0(latents(0), flow[0], level), clean[0]) < 1e-4


def test_first_stage_repeats_the_recorded_reference(model: CausalWan, prompt: Tensor) -> None:
    recorded = load_file(GOLDEN / "rollout.safetensors")
    batch = make_batch([(recorded["initial_noise"][:3], LEVELS[0], 0, ())], [model.encode_context(prompt[:7])], ())
    flow = model(batch, make_pool(model, 1).cache)
    assert error_of(flow[0], recorded["step_first.flow.0"][:3]) < 1e-4


def test_fused_cache_and_denoise_passes_with_history(model: CausalWan, prompt: Tensor) -> None:
    clean, noisy = LEVELS[2], LEVELS[1]
    history: list[BlockSeen] = []
    for block in range(3):
        _, own = oracle_pass(model, latents(block), clean, block, history, prompt)
        history.append(own)
    _, own = oracle_pass(model, latents(3), clean, 3, history[1:], prompt)
    expected, _ = oracle_pass(model, latents(4, 1), noisy, 4, [*history[2:], own], prompt)

    pool = make_pool(model, 8, spare_tokens=9)
    for page, keys_values in zip((6, 2, 5), history, strict=True):
        put(pool, page, keys_values)
    context = model.encode_context(prompt[:7])
    segments = [(latents(3), clean, 3, (2, 5)), (latents(4, 1), noisy, 4, (5, 1))]
    flow = model(make_batch(segments, [context, context], (1,)), pool.cache)

    assert flow.shape == (1, *SHAPE)
    assert error_of(flow[0], expected) < 1e-5
    for layer, (keys, values) in enumerate(as_in_pages(own, GRID)):
        assert error_of(pool.cache.keys_NPLHK[layer, 1, :NUM_TOKENS], keys) < 1e-5
        assert error_of(pool.cache.values_NPLHK[layer, 1, :NUM_TOKENS], values) < 1e-5
    assert bool(pool.cache.keys_NPLHK[:, [0, 3, 4, 7]].isnan().all()), "a page nobody named was written"
    assert bool(pool.cache.keys_NPLHK[:, 1, NUM_TOKENS:].isnan().all())


def test_a_first_block_of_fewer_latent_frames_is_read_as_it_is(model: CausalWan, prompt: Tensor) -> None:
    """Its page has room for more tokens, which hold nothing that may be read."""
    short, num_tokens = latents(0)[:1], NUM_TOKENS // 3
    _, first = oracle_pass(model, short, LEVELS[1], 0, [], prompt)
    _, second = oracle_pass(model, latents(1), LEVELS[1], 1, [first], prompt)
    expected, _ = oracle_pass(model, latents(2), LEVELS[0], 2, [first, second], prompt)
    pool, context = make_pool(model, 3), model.encode_context(prompt[:7])
    model(make_batch([(short, LEVELS[1], 0, ())], [context], (2,)), pool.cache)
    for layer, (keys, values) in enumerate(as_in_pages(first, GRID)):
        assert error_of(pool.cache.keys_NPLHK[layer, 2, :num_tokens], keys) < 1e-5
        assert error_of(pool.cache.values_NPLHK[layer, 2, :num_tokens], values) < 1e-5
    assert bool(pool.cache.keys_NPLHK[:, 2, num_tokens:].isnan().all())
    assert bool(pool.cache.values_NPLHK[:, 2, num_tokens:].isnan().all())
    segments = [(latents(1), LEVELS[1], 1, (2,)), (latents(2), LEVELS[0], 2, (2, 1))]
    batch = replace(make_batch(segments, [context] * 2, (1,)), token_lists=((num_tokens,), (num_tokens, NUM_TOKENS)))
    assert error_of(model(batch, pool.cache)[0], expected) < 1e-5


def test_history_matters(model: CausalWan, prompt: Tensor) -> None:
    _, own = oracle_pass(model, latents(0), LEVELS[1], 0, [], prompt)
    alone, _ = oracle_pass(model, latents(1), LEVELS[0], 1, [], prompt)
    pool = make_pool(model, 1)
    put(pool, 0, own)
    flow = model(make_batch([(latents(1), LEVELS[0], 1, (0,))], [model.encode_context(prompt[:7])], ()), pool.cache)
    assert error_of(flow[0], alone) > 1e-3


def test_videos_of_a_batch_do_not_mix(model: CausalWan, prompt: Tensor) -> None:
    other = torch.zeros_like(prompt)
    other[:3] = noise(5, 0, 0, (3, prompt.shape[1]))
    _, own_a = oracle_pass(model, latents(0), LEVELS[1], 0, [], prompt)
    _, own_b = oracle_pass(model, latents(8), LEVELS[4], 8, [], other)
    expected_a, _ = oracle_pass(model, latents(1), LEVELS[0], 1, [own_a], prompt)
    expected_b, _ = oracle_pass(model, latents(9), LEVELS[3], 9, [own_b], other)
    contexts = [model.encode_context(prompt[:7]), model.encode_context(other[:3])]
    segments = [
        (latents(0), LEVELS[1], 0, ()),
        (latents(8), LEVELS[4], 8, ()),
        (latents(1), LEVELS[0], 1, (2,)),
        (latents(9), LEVELS[3], 9, (0,)),
    ]
    flow = model(make_batch(segments, [*contexts, *contexts], (2, 0)), make_pool(model, 3).cache)
    assert error_of(flow[0], expected_a) < 1e-5
    assert error_of(flow[1], expected_b) < 1e-5


def test_cache_passes_alone_give_no_flow(model: CausalWan, prompt: Tensor) -> None:
    pool = make_pool(model, 2)
    flow = model(make_batch([(latents(0), LEVELS[1], 0, ())], [model.encode_context(prompt[:7])], (1,)), pool.cache)
    assert flow.shape == (0, *SHAPE)
    _, own = oracle_pass(model, latents(0), LEVELS[1], 0, [], prompt)
    for layer, (keys, values) in enumerate(as_in_pages(own, GRID)):
        assert error_of(pool.cache.keys_NPLHK[layer, 1], keys) < 1e-5
        assert error_of(pool.cache.values_NPLHK[layer, 1], values) < 1e-5


# --- prompts ---


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 15, 16])
def test_one_padding_row_stands_for_all(model: CausalWan, num_tokens: int) -> None:
    padded = torch.zeros(model.config.text_len, model.config.text_dim)
    padded[:num_tokens] = noise(3, 0, 0, (num_tokens, model.config.text_dim))
    expected, _ = oracle_pass(model, latents(0), LEVELS[0], 0, [], padded)
    context = model.encode_context(padded[:num_tokens])
    assert context.keys_NTHK.shape[1] == min(num_tokens + 1, model.config.text_len)
    flow = model(make_batch([(latents(0), LEVELS[0], 0, ())], [context], ()), make_pool(model, 1).cache)
    assert error_of(flow[0], expected) < 1e-5


def test_a_prompt_that_is_too_long_is_refused(model: CausalWan) -> None:
    with pytest.raises(ValueError, match="17 tokens, the model reads 16"):
        model.encode_context(torch.zeros(17, model.config.text_dim))


# --- positions ---


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211707")


def exact_rotation(position: int, pair: int, num_pairs: int) -> complex:
    """exp(i * position * 10000 ** (-pair / num_pairs)), the angle taken to 60 digits."""
    getcontext().prec = 60
    theta = Decimal(10000) ** (-Decimal(pair) / Decimal(num_pairs))
    angle = float((position * theta) % (2 * PI))
    return complex(math.cos(angle), math.sin(angle))


@pytest.mark.parametrize("block", [0, 7, 341, 1_000_000])
@pytest.mark.parametrize("head_dim", [32, 128])
def test_rotations_are_exact_far_out(block: int, head_dim: int) -> None:
    grid = (3, 4, 5)
    start = block * grid[0]
    ours = rotations(torch.tensor([start]), grid, head_dim)[0]
    assert ours.dtype == torch.complex64
    assert float((ours.to(torch.complex128) - exact_rotations(start, grid, head_dim)).abs().max()) < 1e-7
    axis_pairs = pairs_by_axis(head_dim)
    for frame, row, column in ((0, 0, 0), (1, 3, 2), (2, 1, 4)):
        token = (frame * grid[1] + row) * grid[2] + column
        first = 0
        for position, num_pairs in zip((block * 3 + frame, row, column), axis_pairs, strict=True):
            for pair in (0, 1, num_pairs // 2, num_pairs - 1):
                expected = exact_rotation(position, pair, num_pairs)
                assert abs(complex(ours[token, first + pair]) - expected) < 2e-7
            first += num_pairs


def test_pairs_of_the_published_heads() -> None:
    assert pairs_by_axis(128) == (22, 21, 21)


def flows_from(model: CausalWan, prompt: Tensor, start: int, gap: int = 1) -> Tensor:
    """Flow of a third block after two cached ones, the first of them at ``start``."""
    pool, context = make_pool(model, 2), model.encode_context(prompt[:7])
    places = (start, start + gap, start + 2 * gap)
    for index in (0, 1):
        segment = (latents(index), LEVELS[1], places[index], tuple(range(index)))
        model(make_batch([segment], [context], (index,)), pool.cache)
    flow: Tensor = model(make_batch([(latents(2), LEVELS[0], places[2], (0, 1))], [context], ()), pool.cache)
    return flow[0]


def test_only_relative_positions_count(model: CausalWan, prompt: Tensor) -> None:
    near = flows_from(model, prompt, 0)
    assert error_of(flows_from(model, prompt, 1_000_000), near) < 1e-3
    assert error_of(flows_from(model, prompt, 340), near) < 1e-3
    assert error_of(flows_from(model, prompt, 0, gap=4), near) > 2e-3, "positions have no effect at all"


# --- diffusers and the published sizes ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_one_block_agrees_with_diffusers(eps: float) -> None:
    from diffusers import WanTransformer3DModel  # noqa: PLC0415

    config = TransformerConfig(
        dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=10, freq_dim=32, in_dim=16, eps=eps
    )
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        text_dim=24,
        freq_dim=32,
        ffn_dim=96,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=eps,
        rope_max_seq_len=64,
    ).eval()
    for name, parameter in theirs.named_parameters():
        if "norm" in name or "scale_shift" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = CausalWan(config).eval()
    load_strictly(ours, transformer_names(theirs.state_dict()), Path("diffusers"))

    padded = torch.zeros(10, 24)
    padded[:4] = torch.randn(4, 24)
    x_FCYX = torch.randn(SHAPE)
    for timestep in (1000.0, 625.0, 0.0):
        level = Level(timestep=timestep, sigma=timestep / 1000)
        flow = ours(
            make_batch([(x_FCYX, level, 0, ())], [ours.encode_context(padded[:4])], ()),
            make_pool(ours, 1).cache,
        )
        expected = theirs(
            hidden_states=x_FCYX.transpose(0, 1)[None],
            timestep=torch.tensor([timestep]),
            encoder_hidden_states=padded[None],
            return_dict=False,
        )[0]
        assert error_of(flow[0], expected[0].transpose(0, 1)) < 1e-4


def test_size_of_the_published_model() -> None:
    with torch.device("meta"):
        tensors = CausalWan(PUBLISHED).state_dict()
    assert len(tensors) == 825
    assert sum(tensor.numel() for tensor in tensors.values()) == 1_418_996_800
    one_block = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("blocks.7."))
    assert one_block == 46_440_704
    assert tuple(tensors["patch_embedding.weight"].shape) == (1536, 16, 1, 2, 2)
    assert tuple(tensors["time_projection.1.weight"].shape) == (9216, 1536)


def test_segments_of_a_batch_must_agree(model: CausalWan, prompt: Tensor) -> None:
    context = model.encode_context(prompt[:7])
    batch = make_batch([(latents(0), LEVELS[0], 0, ())], [context], ())
    with pytest.raises(AssertionError, match="segments disagree"):
        replace(batch, contexts=())
    with pytest.raises(AssertionError, match="segments disagree"):
        replace(batch, write_pages=(0, 1))


def test_bfloat16_stays_near_float32(model: CausalWan, prompt: Tensor) -> None:
    half = CausalWan(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16).eval()
    pool = make_pool(model, 1)
    cache = PagedCache(pool.cache.keys_NPLHK.bfloat16(), pool.cache.values_NPLHK.bfloat16())
    flow = half(make_batch([(latents(0), LEVELS[0], 0, ())], [half.encode_context(prompt[:7])], ()), cache)
    expected, _ = oracle_pass(model, latents(0), LEVELS[0], 0, [], prompt)
    assert flow.dtype == torch.bfloat16
    assert error_of(flow[0].float(), expected) < 0.05 * float(expected.abs().max())
