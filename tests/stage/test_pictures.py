"""Pictures and clips on a worker: which frames become which blocks, and what goes wrong with one of them."""

import queue

import pytest
import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.law.schedule import frames_before_block, start_blocks
from engine.messages import EncodePixels, PixelsEncoded, PixelsFailed
from engine.model.tensor_bytes import to_tensor
from engine.request import Pixels
from engine.stage.pictures import PictureEncoding, opening_pixels, split_blocks

THREES = RolloutConfig(window_latent_frames=12)
"""Blocks of 9, 12, 12 frames; the next one looks back on three."""
ONES = RolloutConfig(latent_frames_per_block=1, window_latent_frames=3)
FIRST_ALONE = RolloutConfig(window_latent_frames=12, first_block_latent_frames=1)
CPU = torch.device("cpu")


def clip(num_frames: int) -> Pixels:
    """Each frame shows its number."""
    data = b"".join(bytes([number]) * 12 for number in range(num_frames))
    return Pixels(num_frames=num_frames, width_px=2, height_px=2, data=data)


def shown(rollout: RolloutConfig, num_frames: int) -> list[int]:
    return opening_pixels(rollout, clip(num_frames))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("rollout", "num_frames", "blocks"),
    [
        *[(THREES, 1, 1), (THREES, 9, 1), (THREES, 20, 1), (THREES, 21, 2), (THREES, 33, 3), (THREES, 200, 3)],
        *[(ONES, 1, 1), (ONES, 4, 1), (ONES, 5, 2), (ONES, 200, 2)],
        *[(FIRST_ALONE, 1, 1), (FIRST_ALONE, 13, 2)],
        (RolloutConfig(window_latent_frames=3), 200, 1),
    ],
)
def test_a_clip_gives_whole_blocks_as_far_as_the_next_looks_back(
    rollout: RolloutConfig, num_frames: int, blocks: int
) -> None:
    assert start_blocks(rollout, num_frames) == blocks
    assert len(shown(rollout, num_frames)) == frames_before_block(rollout, blocks)


def test_a_picture_is_repeated_over_block_0_and_a_clip_is_aligned_at_its_end() -> None:
    assert shown(THREES, 1) == [0] * 9
    assert shown(ONES, 1) == shown(FIRST_ALONE, 1) == [0]
    assert shown(THREES, 4) == [0, 0, 0, 0, 0, 0, 1, 2, 3]
    assert shown(THREES, 10) == list(range(1, 10))
    assert shown(THREES, 40) == list(range(7, 40))


@pytest.mark.parametrize(("rollout", "sizes"), [(THREES, [3, 3]), (ONES, [1] * 6), (FIRST_ALONE, [1, 3, 2])])
def test_latents_are_split_where_blocks_begin(rollout: RolloutConfig, sizes: list[int]) -> None:
    latents = torch.arange(6.0)[:, None]
    blocks = split_blocks(rollout, latents)
    assert [len(block) for block in blocks] == sizes
    torch.testing.assert_close(torch.cat(blocks), latents)


class OneBad:
    """An encoder that cannot bear white."""

    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        if bool((pixels_TCHW == 1).all()):
            raise RuntimeError("white")
        return pixels_TCHW[::4].mean((2, 3), keepdim=True)


def test_what_goes_wrong_concerns_the_picture_alone(caplog: pytest.LogCaptureFixture) -> None:
    answers: queue.SimpleQueue[PixelsEncoded | PixelsFailed] = queue.SimpleQueue()
    encoding = PictureEncoding(OneBad(), THREES, CPU, answers.put)
    for request, value in enumerate((255, 51)):
        pixels = Pixels(num_frames=1, width_px=2, height_px=2, data=bytes([value]) * 12)
        encoding.ask(EncodePixels(request=request, pixels=pixels))
    failed, encoded = answers.get(timeout=10), answers.get(timeout=10)
    assert isinstance(failed, PixelsFailed) and (failed.request, failed.code) == (0, "engine_error")
    assert failed.message == "encoding the picture failed on cpu (RuntimeError)" and "white" in caplog.text
    assert isinstance(encoded, PixelsEncoded) and encoded.request == 1
    torch.testing.assert_close(to_tensor(encoded.blocks[0]), torch.full((3, 3, 1, 1), 0.2))
