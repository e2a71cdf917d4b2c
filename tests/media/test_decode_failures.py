"""What the decode stage does when latents, the decoder or the encoder fail: one video breaks, and says so once."""

import numpy as np
import pytest
import torch

from engine.errors import CorruptLatents, EncoderFailed, EngineOutOfMemory, VideoFailed
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
    assert broken.message == "cpu had no memory left for decoding block 0 (too much)"
    bench.decoder.fails = None
    bench.block("b", 0)
    assert named(bench.close("b")) == ["BlockDone 0"]


# --- what nobody foresaw ---


def test_an_unforeseen_error_of_the_encoder_breaks_its_video_alone(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)
        bench.take()
    bench.encoders["a"].fails = KeyError("nobody foresaw this")
    for block in (0, 1):
        bench.block("a", block)
        bench.block("b", block)
    assert bench.close("a")[0] == VideoBroken(
        video="a", code=VideoFailed.code, message="encoding block 0 failed on cpu (KeyError)"
    )
    bench.block("b", 2)
    assert named(bench.close("b"))[-1:] == ["BlockDone 2"]
    (logged,) = caplog.records
    assert "video a ends" in caplog.text and "nobody foresaw this" in caplog.text and "encode_block" in caplog.text
    assert logged.levelname == "ERROR"


def test_an_unforeseen_error_of_the_decoder_breaks_its_video_behind_its_good_blocks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)
        bench.take()
    bench.block("a", 0)
    bench.decoder.fails = KeyError("nobody foresaw this")
    bench.block("a", 1)
    bench.block("a", 2)
    bench.decoder.fails = None
    bench.block("b", 0)
    assert named(bench.close("b")) == ["BlockDone 0", "VideoBroken", "BlockDone 0"]
    assert bench.close("a") == [] and caplog.text.count("KeyError: 'nobody foresaw this'") == 1


def test_too_few_frames_break_the_video() -> None:
    bench = Bench()
    bench.open("a")
    bench.block("a", 0, num_frames=12)
    assert named(bench.close("a")) == ["InitReady", "VideoBroken"]


def test_an_unforeseen_error_while_a_block_is_restored_breaks_the_video() -> None:
    bench = Bench()
    bench.open("a", first_block=4)
    bench.decoder.fails = KeyError("nobody foresaw this")
    bench.restore("a", 3)
    bench.decoder.fails = None
    bench.block("a", 4)
    assert named(bench.close("a")) == ["InitReady", "VideoBroken"]


def test_an_encoder_that_does_not_open_or_close_for_an_unforeseen_reason_harms_nobody() -> None:
    def refuse(ticket: OpenTicket) -> Encoder:
        raise KeyError("nobody foresaw this")

    refusing = Bench(refuse)
    refusing.open("a")
    assert refusing.take() == VideoBroken(
        video="a", code=VideoFailed.code, message="opening the encoder failed on cpu (KeyError)"
    )
    assert refusing.close("a") == []
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)

    def fail() -> None:
        raise KeyError("nobody foresaw this")

    bench.encoders["a"].close = fail  # type: ignore[method-assign]
    bench.block("a", 0)
    assert named(bench.close("a")) == ["InitReady", "InitReady", "BlockDone 0"]
    bench.block("b", 0)
    assert named(bench.close("b")) == ["BlockDone 0"]


def test_a_device_that_can_compute_no_more_is_not_one_videos_fault() -> None:
    bench = Bench()
    bench.open("a")
    bench.decoder.fails = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        bench.block("a", 0)
    assert named(bench.close("a")) == ["InitReady"]


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
