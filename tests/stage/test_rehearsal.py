"""Rehearsed networks: what they make can be read from the video, and failures strike where they were ordered."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import Order
from engine.engine_config import Fault, FaultKind, Rehearsal
from engine.law.schedule import frames_before_block, frames_in_block, noise_levels
from engine.law.step import predict_x0
from engine.media.encoder import BlockEncoder
from engine.model.segments import PagedCache, SegmentBatch
from engine.request import Quality
from engine.stage.rehearsal import (
    EXIT_STATUS,
    Faults,
    RehearsedDecoder,
    RehearsedModel,
    RehearsedPrompt,
    paint_frame_numbers,
)
from kernels.yuv.formula import rgb_to_yuv420p
from tests.media.painted import frame_numbers, frame_times
from tests.stage.micro import TRANSFORMER, rollout

pytestmark = pytest.mark.in_time

FPS = 16
ROLLOUT = rollout(Order.STEP_FIRST)
LEVELS = noise_levels(ROLLOUT)
NO_PAGES = PagedCache(torch.empty(0), torch.empty(0))


def model(pass_s: float = 1e-4) -> RehearsedModel:
    return RehearsedModel(TRANSFORMER, Rehearsal(pass_s=pass_s))


def segments(latents: Tensor, levels: list[int], blocks: list[int], *, num_cache: int = 0) -> SegmentBatch:
    context = model().encode_context(torch.zeros(1, TRANSFORMER.text_dim))
    return SegmentBatch(
        latents_GFCYX=latents,
        timesteps_G=torch.tensor([LEVELS[level].timestep for level in levels]),
        starts_G=torch.tensor(blocks) * latents.shape[1],
        contexts=(context,) * len(blocks),
        page_lists=((),) * len(blocks),
        write_pages=tuple(range(num_cache)),
    )


def clean_block(block: int, side_px: int = 128) -> Tensor:
    return torch.full((3, 4, side_px // 8, side_px // 8), float(block))


def painted_mp4(side_px: int, quality: Quality, between: bytes = b"") -> bytes:
    """Four blocks, encoded as a worker does."""
    encoder, decoder, state = BlockEncoder(side_px, side_px, FPS, quality), RehearsedDecoder(0.0), None
    mp4 = encoder.init_segment
    for block in range(4):
        pixels, state = decoder.decode(clean_block(block, side_px), state)
        mp4 += between + encoder.encode_block(rgb_to_yuv420p(pixels))
    encoder.close()
    return mp4


# --- model ---


def test_denoise_passes_predict_the_block_number() -> None:
    noise = torch.randn(6, 3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    levels, blocks = [1, 4, 0, 1, 2, 3], [7, 8, 0, 3, 40, 5000]
    flow = model()(segments(noise, levels, blocks, num_cache=2), NO_PAGES)
    assert flow.shape == (4, 3, 4, 4, 4)
    for index, (level, block) in enumerate(zip(levels[2:], blocks[2:], strict=True)):
        x0 = predict_x0(noise[2 + index], flow[index], LEVELS[level])
        torch.testing.assert_close(x0, torch.full_like(x0, block), rtol=1e-6, atol=1e-5)


def test_a_forward_of_cache_passes_returns_no_flow() -> None:
    flow = model()(segments(torch.zeros(2, 3, 4, 4, 4), [1, 4], [0, 1], num_cache=2), NO_PAGES)
    assert len(flow) == 0


def test_a_forward_takes_the_sum_of_its_passes() -> None:
    began_s = time.monotonic()
    model(pass_s=0.05)(segments(torch.zeros(3, 3, 4, 4, 4), [1, 0, 1], [0, 1, 2], num_cache=1), NO_PAGES)
    assert 0.15 <= time.monotonic() - began_s < 0.5


def test_prompt_is_one_row_that_the_model_takes() -> None:
    row = RehearsedPrompt(TRANSFORMER.text_dim).embed("a red fox")
    assert row.shape == (1, TRANSFORMER.text_dim)
    context = model().encode_context(row)
    assert (context.keys_NTHK.ndim, context.values_NTHK.ndim, context.bias_T.ndim) == (4, 4, 1)


# --- pictures ---


@pytest.mark.parametrize("quality", [Quality.DRAFT, Quality.STANDARD])
@pytest.mark.parametrize("side_px", [128, 96])
def test_a_video_shows_its_frame_numbers(side_px: int, quality: Quality) -> None:
    mp4 = painted_mp4(side_px, quality)
    assert frame_numbers(mp4) == list(range(9 + 3 * 12))
    assert frame_times(mp4) == [number / FPS for number in range(45)]


@pytest.mark.parametrize("kind", [b"free", b"uuid"])
def test_boxes_between_fragments_do_not_matter(kind: bytes) -> None:
    between = (8 + 24).to_bytes(4, "big") + kind + bytes(24)
    mp4 = painted_mp4(96, Quality.DRAFT, between)
    assert mp4.count(between) == 4
    assert frame_numbers(mp4) == list(range(45))


@pytest.mark.parametrize("block", [0, 1, 2, 7, 341])
def test_frames_of_a_block_follow_the_schedule(block: int) -> None:
    pixels, _ = RehearsedDecoder(0.0).decode(clean_block(block), None)
    first, length = frames_before_block(ROLLOUT, block), frames_in_block(ROLLOUT, block)
    assert pixels.shape == (length, 3, 128, 128) and pixels.dtype == torch.float32
    assert torch.equal(pixels, paint_frame_numbers(range(first, first + length), (128, 128)))


@pytest.mark.parametrize("error", [-0.4, 0.4])
def test_latents_need_not_be_exact(error: float) -> None:
    nearly = clean_block(5) + error + torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(2)) / 2
    pixels, _ = RehearsedDecoder(0.0).decode(nearly, None)
    assert torch.equal(pixels, RehearsedDecoder(0.0).decode(clean_block(5), None)[0])


def test_numbers_of_any_16_bits_survive_the_encoder() -> None:
    first = 0b1010_0101_1100_0011
    encoder = BlockEncoder(96, 96, FPS, Quality.DRAFT)
    fragment = encoder.encode_block(rgb_to_yuv420p(paint_frame_numbers(range(first, first + 12), (96, 96))))
    assert frame_numbers(encoder.init_segment + fragment) == list(range(first, first + 12))


def test_decoding_takes_its_time() -> None:
    began_s = time.monotonic()
    RehearsedDecoder(0.05).decode(clean_block(0), None)
    assert time.monotonic() - began_s >= 0.05


# --- faults ---


def fault(kind: FaultKind) -> Fault:
    return Fault(kind=kind, stage=1, block=4, seed=9)


ELSEWHERE = [place for place in itertools.product((0, 1), (3, 4), (8, 9)) if place != (1, 4, 9)]


def test_out_of_memory_strikes_its_pass_once() -> None:
    faults = Faults((fault(FaultKind.OUT_OF_MEMORY),))
    for place in ELSEWHERE:
        faults.before_pass(*place)
    assert not faults.spoils(1, 4, 9)
    with pytest.raises(torch.OutOfMemoryError, match="rehearsed"):
        faults.before_pass(1, 4, 9)
    faults.before_pass(1, 4, 9)


def test_an_error_that_nobody_foresees_strikes_its_pass_whenever_it_is_run() -> None:
    faults = Faults((fault(FaultKind.RAISE),))
    for place in ELSEWHERE:
        faults.before_pass(*place)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="rehearsed"):
            faults.before_pass(1, 4, 9)


def test_nan_spoils_its_pass_once() -> None:
    faults = Faults((fault(FaultKind.NAN),))
    assert not any(faults.spoils(*place) for place in ELSEWHERE)
    faults.before_pass(1, 4, 9)
    assert [faults.spoils(1, 4, 9), faults.spoils(1, 4, 9)] == [True, False]


def test_a_fault_ordered_twice_strikes_twice() -> None:
    faults = Faults((fault(FaultKind.NAN), fault(FaultKind.NAN)))
    assert [faults.spoils(1, 4, 9) for _ in range(3)] == [True, True, False]


def strike_in_a_process(kind: FaultKind) -> "subprocess.Popen[bytes]":
    """A process that says ``armed``, is struck, and says ``survived`` if it lives on."""
    program = f"""
from engine.engine_config import Fault, FaultKind
from engine.stage.rehearsal import Faults
faults = Faults((Fault(kind=FaultKind.{kind.name}, stage=1, block=4, seed=9),))
faults.before_pass(1, 4, 8)
print("armed", flush=True)
faults.before_pass(1, 4, 9)
print("survived", flush=True)
"""
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_exit_ends_the_process() -> None:
    with strike_in_a_process(FaultKind.EXIT) as process:
        printed, _ = process.communicate(timeout=60)
    assert (printed, process.returncode) == (b"armed\n", EXIT_STATUS)


@pytest.mark.slow
def test_hang_stops_the_process_without_ending_it() -> None:
    with strike_in_a_process(FaultKind.HANG) as process:
        assert process.stdout is not None and process.stdout.readline() == b"armed\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.kill()
        assert process.stdout.read() == b""
