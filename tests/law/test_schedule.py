"""The law of hierarchical denoising: noise levels to the last bit, windows, page life and frame counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.config import Order, RolloutConfig, TransformerConfig, VideoConfig
from engine.law.schedule import (
    block_at_frame,
    blocks_for_frames,
    frames_before_block,
    frames_in_block,
    noise_levels,
    sigma_table,
)
from engine.law.window import attended_blocks, context_stage, evicted_blocks, pages_per_video, writes_pages

HIAR = RolloutConfig()
SINKS = replace(HIAR, window_latent_frames=12, sink_latent_frames=3)


def gone(rollout: RolloutConfig, block: int) -> list[int]:
    return evicted_blocks(rollout, block, [*attended_blocks(rollout, block), block])


def windowed(window_blocks: int, sink_blocks: int, per_block: int = 3) -> RolloutConfig:
    return RolloutConfig(
        latent_frames_per_block=per_block,
        window_latent_frames=window_blocks * per_block,
        sink_latent_frames=sink_blocks * per_block,
    )


@pytest.mark.parametrize("shift", [5.0, 8.0])
def test_sigma_table_is_torchs_float32_to_the_bit(shift: float) -> None:
    grid = torch.linspace(1, 0, 1001, dtype=torch.float32)[:-1]
    expected = shift * grid / (1 + (shift - 1) * grid)
    ours = torch.tensor(sigma_table(shift), dtype=torch.float64)
    assert torch.equal(ours, expected.double())


def test_levels_of_the_published_model_to_the_bit() -> None:
    levels = noise_levels(HIAR)
    assert [level.timestep for level in levels] == [1000.0, 937.5, float.fromhex("0x1.a0aaaap+9"), 625.0, 0.0]
    assert levels[2].timestep == 833.33331298828125
    assert [level.sigma for level in levels] == [1.0, 0.9375, 0.8333333134651184, 0.625, 0.0]


def test_last_table_entry_and_the_wrappers_default_shift() -> None:
    assert sigma_table(5.0)[999] == pytest.approx(0.00498008, abs=5e-9)
    levels = noise_levels(replace(HIAR, timestep_shift=8.0))
    assert [level.timestep for level in levels] == pytest.approx([1000, 960, 888.889, 727.273, 0], abs=5e-4)


def test_window_without_sinks() -> None:
    assert attended_blocks(HIAR, 0) == ()
    assert attended_blocks(HIAR, 1) == (0,)
    assert attended_blocks(HIAR, 6) == (0, 1, 2, 3, 4, 5)
    assert attended_blocks(HIAR, 7) == (1, 2, 3, 4, 5, 6)
    assert attended_blocks(HIAR, 1_000_000) == tuple(range(999_994, 1_000_000))
    assert [gone(HIAR, b) for b in (0, 5, 6, 7, 20)] == [[], [], [0], [1], [14]]


def test_window_with_sinks() -> None:
    assert attended_blocks(SINKS, 0) == ()
    assert attended_blocks(SINKS, 3) == (0, 1, 2)
    assert attended_blocks(SINKS, 4) == (0, 2, 3)
    assert attended_blocks(SINKS, 9) == (0, 7, 8)
    assert [gone(SINKS, b) for b in (0, 2, 3, 4, 9)] == [[], [], [1], [2], [7]]


WINDOWS = [(window, sinks) for window in range(1, 8) for sinks in range(window)]


@pytest.mark.parametrize(("window", "sinks"), WINDOWS)
def test_evictions_leave_exactly_the_attended_pages(window: int, sinks: int) -> None:
    rollout = windowed(window, sinks)
    pages: set[int] = set()
    for block in range(40):
        assert pages == set(attended_blocks(rollout, block))
        pages.add(block)
        assert len(pages) <= rollout.window_blocks
        pages -= set(evicted_blocks(rollout, block, pages))


@pytest.mark.parametrize(("window", "sinks"), WINDOWS)
def test_window_holds_the_sinks_and_the_newest(window: int, sinks: int) -> None:
    rollout = windowed(window, sinks)
    for block in range(40):
        expected = {b for b in range(block) if b < sinks or b > block - (window - sinks)}
        assert attended_blocks(rollout, block) == tuple(sorted(expected))


def test_frames_of_the_published_model() -> None:
    assert [frames_in_block(HIAR, b) for b in range(3)] == [9, 12, 12]
    assert [frames_before_block(HIAR, b) for b in (0, 1, 2, 7, 27)] == [0, 9, 21, 81, 321]
    assert [blocks_for_frames(HIAR, n) for n in (0, 1, 9, 10, 21, 22, 81, 321)] == [1, 1, 1, 2, 2, 3, 7, 27]
    assert [block_at_frame(HIAR, n) for n in (-5, 0, 1, 9, 10, 21, 22)] == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("per_block", [1, 2, 3, 5])
def test_frame_counts_agree_with_each_other(per_block: int) -> None:
    rollout = windowed(4, 0, per_block)
    total = 0
    for block in range(30):
        assert frames_before_block(rollout, block) == total
        total += frames_in_block(rollout, block)
        assert total == 4 * per_block * (block + 1) - 3
    for num_frames in range(1, 200):
        blocks = blocks_for_frames(rollout, num_frames)
        assert frames_before_block(rollout, blocks) >= num_frames > frames_before_block(rollout, blocks - 1)
    for frame in range(200):
        at = block_at_frame(rollout, frame)
        assert frames_before_block(rollout, at) >= frame
        assert at == 0 or frames_before_block(rollout, at - 1) < frame


def test_step_first_context_is_each_stages_own() -> None:
    assert [context_stage(HIAR, s) for s in range(4)] == [0, 1, 2, 3]
    assert all(writes_pages(HIAR, s) for s in range(4))
    assert pages_per_video(HIAR) == 4 * 7


def test_block_first_context_is_the_last_stages() -> None:
    block_first = replace(HIAR, order=Order.BLOCK_FIRST)
    assert [context_stage(block_first, s) for s in range(4)] == [3, 3, 3, 3]
    assert [writes_pages(block_first, s) for s in range(4)] == [False, False, False, True]
    assert pages_per_video(block_first) == 7


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"denoising_steps": ()}, "no denoising step"),
        ({"denoising_steps": (250, 500)}, r"\(250, 500\)"),
        ({"denoising_steps": (500, 500)}, r"\(500, 500\)"),
        ({"denoising_steps": (1001, 500)}, r"\(1001, 500\)"),
        ({"denoising_steps": (500, 0)}, r"\(500, 0\)"),
        ({"latent_frames_per_block": 0}, "latent_frames_per_block=0"),
        ({"window_latent_frames": 20}, "window_latent_frames=20"),
        ({"sink_latent_frames": 4}, "sink_latent_frames=4"),
        ({"sink_latent_frames": 21}, "sinks leave no room"),
        ({"window_latent_frames": 0}, "no room"),
        ({"context_timestep": 1001}, "context_timestep=1001"),
    ],
)
def test_wrong_rollouts_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RolloutConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"num_heads": 5}, "num_heads=5"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_heads": 64}, "head width 1 is odd"),
        ({"freq_dim": 33}, "freq_dim=33"),
    ],
)
def test_wrong_transformers_are_refused_by_name(wrong: dict[str, int], named: str) -> None:
    sizes = {"dim": 64, "ffn_dim": 160, "num_heads": 2, "num_layers": 3, "text_dim": 48, "text_len": 16}
    with pytest.raises(ValueError, match=named):
        TransformerConfig(**(sizes | wrong))


@pytest.mark.parametrize("size", [(0, 16), (100, 64), (64, 8)])
def test_wrong_picture_sizes_are_refused_by_name(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        VideoConfig(sizes=(size,))
