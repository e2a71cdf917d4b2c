"""What the decode stage does when latents, the decoder or the encoder fail: one video breaks, and says so once."""

import numpy as np
import pytest
import torch

from engine.errors import CorruptLatents, EncoderFailed, EngineOutOfMemory
from engine.media import encoder as encoder_module
from engine.media.decode import Encoder
from engine.media.encoder import BlockEncoder
from engine.messages import BlockTicket, OpenTicket, VideoBroken
from engine.request import Output, Quality
from tests.media.decode_bench import FPS, SIDE_PX, Bench, latents, named, real_encoder


def test_a_failing_encoder_breaks_its_video_alone() -> None:
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)
        bench.block(video, 0)
        assert named([bench.take(), bench.take()]) == ["InitReady", "BlockDone 0"]
    failing = bench.encoders["a"]
    failing.fails = EncoderFailed("frame 9 gave 0 packets")
    failing.gate.clear()
    for block in (1, 2):
        bench.block("a", block)
        bench.block("b", block)
    failing.gate.set()
    came = [bench.take() for _ in range(3)]
    assert came[0] == VideoBroken(video="a", code="encoder_failed", message="frame 9 gave 0 packets")
    assert [message.video for message in came[1:]] == ["b", "b"]
    decoded = len(bench.decoder.blocks)
    bench.block("a", 3)
    bench.restore("a", 4)
    assert len(bench.decoder.blocks) == decoded, "a broken video is not decoded"
    assert bench.close("a") == [] and failing.closed


def test_an_encoder_that_does_not_open_breaks_the_video() -> None:
    def refuse(ticket: OpenTicket) -> Encoder:
        raise EncoderFailed("no such size")

    bench = Bench(refuse)
    bench.open("a")
    assert bench.take() == VideoBroken(video="a", code=EncoderFailed.code, message="no such size")
    bench.block("a", 0)
    assert bench.close("a") == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_corrupt_latents_break_the_video_behind_its_good_blocks(value: float) -> None:
    bench = Bench()
    bench.open("a")
    bench.encoders["a"].gate.clear()
    bench.block("a", 0)
    bench.block("a", 1, value=value)
    bench.block("a", 2, value=value)
    bench.block("a", 3)
    bench.encoders["a"].gate.set()
    messages = bench.close("a")
    assert named(messages) == ["InitReady", "BlockDone 0", "VideoBroken"]
    assert messages[2] == VideoBroken(
        video="a", code=CorruptLatents.code, message="block 1 came out as NaN or infinity"
    )


@pytest.mark.parametrize("output", Output)
def test_one_bad_value_is_enough_in_any_video_and_any_block(output: Output) -> None:
    bench = Bench()
    bench.open("a", output=output, first_block=1)
    bad = latents(0)
    bad[2, 3, 7, 7] = torch.nan
    bench.stage.finish_block(BlockTicket(video="a", block=0, num_frames=9, last=False), bad)
    assert named(bench.close("a"))[-1] == "VideoBroken"


def test_a_corrupt_saved_block_breaks_the_video() -> None:
    bench = Bench()
    bench.open("a", first_block=4)
    bench.restore("a", 3, value=torch.nan)
    assert named(bench.close("a")) == ["InitReady", "VideoBroken"]


def test_no_memory_for_the_decoder_breaks_the_video_alone() -> None:
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)
        bench.take()
    bench.decoder.fails = torch.OutOfMemoryError("too much")
    bench.block("a", 0)
    broken = bench.take()
    assert isinstance(broken, VideoBroken) and broken.code == EngineOutOfMemory.code
    assert broken.message == "cpu had no memory left to decode block 0"
    bench.decoder.fails = None
    bench.block("b", 0)
    assert named(bench.close("b")) == ["BlockDone 0"]


# --- the real encoder's failures ---


def test_a_muxer_that_fails_is_an_encoder_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(real_encoder)
    bench.open("a")
    bench.block("a", 0)
    assert named([bench.take(), bench.take()]) == ["InitReady", "BlockDone 0"]
    monkeypatch.setitem(encoder_module.MUXER_OPTIONS, "movflags", "nonsense")
    bench.block("a", 1)
    (broken,) = bench.close("a")
    assert isinstance(broken, VideoBroken) and broken.code == EncoderFailed.code
    assert "libx264 gave up before frame 21: Invalid argument" in broken.message


def test_a_lost_frame_is_an_encoder_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(encoder_module.PERSISTENT_OPTIONS, "tune")  # x264 then looks ahead and keeps frames back
    encoder = BlockEncoder(SIDE_PX, SIDE_PX, FPS, Quality.STANDARD)
    with pytest.raises(EncoderFailed, match="frame 0 gave 0 packets"):
        encoder.encode_block(np.zeros((2, SIDE_PX * 3 // 2, SIDE_PX), np.uint8))
    encoder.close()


def test_a_size_that_x264_refuses_is_an_encoder_failure() -> None:
    with pytest.raises(EncoderFailed, match="libx264 did not open at 32768x32768"):
        BlockEncoder(32768, 32768, FPS, Quality.DRAFT)
