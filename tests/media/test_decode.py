"""The decode stage: order, cut blocks, latents, resumed and restored videos, and the encoder's own thread."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.media.decode import MAX_WAITING_JOBS, DecodeStage
from engine.messages import BlockDone, BlockRepeated, InitReady
from engine.model.tensor_bytes import to_tensor
from engine.request import Output
from engine.trace import Phase
from tests.media.decode_bench import FPS, GREY_PER_BLOCK, PATIENCE_S, SIDE_PX, Bench, named, noisy_encoder, real_encoder
from tests.media.mp4_reading import decode

# --- blocks ---


def test_blocks_come_out_in_order_with_their_times() -> None:
    bench = Bench()
    bench.open("a")
    assert bench.take() == InitReady(video="a", data=b"init a", codecs="avc1.64000a")
    for block in range(4):
        bench.block("a", block)
    messages = bench.close("a")
    assert named(messages) == ["BlockDone 0", "BlockDone 1", "BlockDone 2", "BlockDone 3"]
    assert bench.decoder.blocks == [0, 1, 2, 3]
    assert [message.data for message in messages] == [b"9 frames"] + 3 * [b"12 frames"]


def test_the_last_block_is_cut_to_the_frames_that_are_shown() -> None:
    bench = Bench()
    bench.open("a")
    bench.block("a", 0)
    bench.block("a", 1, num_frames=5)
    last = bench.close("a")[-1]
    assert isinstance(last, BlockDone) and (last.num_frames, last.data) == (5, b"5 frames")


def test_videos_keep_their_states_apart() -> None:
    bench = Bench()
    for video in ("a", "b"):
        bench.open(video)
    for block in range(2):
        bench.block("a", block)
        bench.block("b", block)
    assert [message.data for message in bench.close("b") if isinstance(message, BlockDone)] == [
        b"9 frames",
        b"9 frames",
        b"12 frames",
        b"12 frames",
    ]


def test_phases_are_timed() -> None:
    bench = Bench()
    bench.open("a", first_block=2, from_block=1)
    bench.restore("a", 0)
    bench.block("a", 1)
    bench.block("a", 2)
    done = bench.close("a")[-1]
    spans = bench.timer.take()
    places = [(span.phase, span.video, span.block, span.rank, span.stage) for span in spans]
    decoded = [(Phase.DECODE, "a", block, 3, None) for block in (0, 1, 2)]
    encoded = [(Phase.ENCODE, "a", block, 3, None) for block in (1, 2)]
    assert sorted(places) == sorted([*decoded, *encoded])
    assert isinstance(done, BlockDone) and done.decode_s > 0 and done.encode_s > 0


# --- latents ---


def test_latents_come_at_once_and_undecoded() -> None:
    bench = Bench()
    bench.open("a", output=Output.LATENTS, first_block=2)
    bench.restore("a", 0)
    for block in range(1, 4):
        bench.block("a", block)
    messages = [bench.messages.get_nowait() for _ in range(bench.messages.qsize())]
    assert named(messages) == ["BlockRepeated 1", "BlockDone 2", "BlockDone 3"]
    assert [to_tensor(done.latents).mean() for done in messages[1:]] == [2, 3]
    assert bench.decoder.blocks == [] and bench.encoders == {}


def test_a_video_of_latents_is_closed_at_once() -> None:
    bench = Bench()
    bench.open("a", output=Output.LATENTS)
    threads: list[threading.Thread] = []
    bench.stage.close("a", lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_latents_need_no_decoder() -> None:
    messages: queue.Queue[object] = queue.Queue()
    bench = Bench()
    bench.stage = DecodeStage(None, real_encoder, messages.put, bench.timer)
    bench.open("a", output=Output.LATENTS)
    bench.block("a", 0)
    assert named([messages.get_nowait()]) == ["BlockDone 0"]


# --- resuming and restoring ---


def test_repeated_blocks_are_decoded_and_encoded_and_not_sent() -> None:
    bench = Bench()
    bench.open("a", first_block=2)
    bench.take()
    for block in range(4):
        bench.block("a", block)
    messages = bench.close("a")
    assert messages[:2] == [BlockRepeated(video="a", block=0), BlockRepeated(video="a", block=1)]
    assert named(messages[2:]) == ["BlockDone 2", "BlockDone 3"]
    assert (bench.decoder.blocks, bench.decoder.seen) == ([0, 1, 2, 3], [0, 3, 6, 9])
    assert bench.encoders["a"].num_frames == [9, 12, 12, 12]


def test_restored_blocks_advance_the_decoder_in_silence() -> None:
    bench = Bench()
    bench.open("a", first_block=6, from_block=6)
    bench.take()
    for block in (4, 5):
        bench.restore("a", block)
    bench.block("a", 6)
    messages = bench.close("a")
    assert named(messages) == ["BlockDone 6"]
    assert messages[0].data == b"12 frames", "the decoder had not seen the blocks before"
    assert (bench.decoder.blocks, bench.decoder.seen) == ([4, 5, 6], [0, 3, 6])


def fragments_of(messages: list[object]) -> list[bytes]:
    return [message.data for message in messages if isinstance(message, BlockDone)]


def test_a_video_that_is_made_again_has_the_bytes_of_one_that_never_stopped() -> None:
    bench = Bench(noisy_encoder)
    bench.open("a")
    for block in range(6):
        bench.block("a", block)
    init, *whole = bench.close("a")
    bench.open("a", first_block=3)
    for block in range(6):
        bench.block("a", block)
    again, *rest = bench.close("a")
    assert again == init and named(rest) == [*(f"BlockRepeated {n}" for n in range(3)), *named(whole)[3:]]
    assert fragments_of(rest) == fragments_of(whole)[3:]


def test_a_restored_video_goes_on_where_the_first_part_stopped() -> None:
    bench = Bench(real_encoder)
    video, inits = b"", []
    for blocks in (range(2), range(2, 5)):
        bench.open("a", first_block=blocks.start, from_block=blocks.start)
        for block in range(blocks.start):
            bench.restore("a", block)
        for block in blocks:
            bench.block("a", block)
        init, *messages = bench.close("a")
        inits.append(init)
        video += b"".join(fragments_of(messages))
    assert isinstance(inits[0], InitReady) and inits[1] == inits[0]
    pictures = decode(inits[0].data + video)
    assert [float(picture.time_s) for picture in pictures] == [n / FPS for n in range(9 + 4 * 12)]
    luma = np.array([picture.planes[:SIDE_PX].mean() for picture in pictures])
    greys = np.repeat(np.arange(5), [9, 12, 12, 12, 12]) * GREY_PER_BLOCK
    np.testing.assert_allclose(luma, 16 + 219 * greys, atol=1.1)


# --- the encoder's thread ---


def test_decoding_goes_on_while_the_encoder_works() -> None:
    bench = Bench()
    bench.open("a")
    encoder = bench.encoders["a"]
    encoder.gate.clear()
    for block in range(3):
        bench.block("a", block)
    assert encoder.began.wait(PATIENCE_S)
    assert bench.decoder.blocks == [0, 1, 2]
    assert bench.messages.qsize() == 1, "only the init segment came"
    encoder.gate.set()
    assert len(bench.close("a")) == 4


def test_few_blocks_wait_for_the_encoder() -> None:
    bench = Bench()
    bench.open("a")
    encoder = bench.encoders["a"]
    encoder.gate.clear()
    num_blocks = MAX_WAITING_JOBS + 4
    caller = threading.Thread(target=lambda: [bench.block("a", block) for block in range(num_blocks)], daemon=True)
    caller.start()
    at_most = MAX_WAITING_JOBS + 2  # one at the encoder, and one whose caller waits for room
    wait_until(lambda: len(bench.decoder.blocks) >= at_most)
    time.sleep(0.1)
    assert len(bench.decoder.blocks) == at_most
    encoder.gate.set()
    caller.join(PATIENCE_S)
    assert named(bench.close("a")[1:]) == [f"BlockDone {block}" for block in range(num_blocks)]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_close_takes_effect_behind_the_blocks_that_wait() -> None:
    bench = Bench()
    bench.open("a")
    encoder = bench.encoders["a"]
    encoder.gate.clear()
    bench.block("a", 0)
    bench.block("a", 1)
    bench.stage.close("a", lambda: bench.messages.put("closed" if encoder.closed else "still open"))
    assert encoder.began.wait(PATIENCE_S) and not encoder.closed
    encoder.gate.set()
    came = [bench.take() for _ in range(4)]
    assert named(came[:3]) == ["InitReady", "BlockDone 0", "BlockDone 1"]
    assert came[3] == "closed"


def test_a_video_may_come_again_under_its_name() -> None:
    bench = Bench()
    for _ in range(2):
        bench.open("a")
        bench.block("a", 0)
        assert named(bench.close("a")) == ["InitReady", "BlockDone 0"]


PIPE_IS_GONE = """
import time
from engine.media.decode import DecodeStage
from engine.messages import BlockDone
from engine.trace import Timer
from tests.media.decode_bench import Bench, GreyDecoder
bench = Bench()
def emit(message):
    if isinstance(message, BlockDone):
        raise OSError("the pipe is gone")
bench.stage = DecodeStage(GreyDecoder(), bench._open_encoder, emit, Timer(0))
bench.open("a")
bench.block("a", 0)
time.sleep(30)
"""


@pytest.mark.slow
def test_what_is_not_about_one_video_ends_the_process_from_the_encoders_thread() -> None:
    command, root = [sys.executable, "-c", PIPE_IS_GONE], Path(__file__).parents[2]
    began_s = time.monotonic()
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "OSError: the pipe is gone" in ended.stderr
    assert time.monotonic() - began_s < 30
