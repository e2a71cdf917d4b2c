"""Fragments as players see them: experiments M1, M2, M3 and L8 of the ``operations`` spec, section 1.6."""

import gc
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import psutil
import pytest
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from engine.media.boxes import split_boxes
from engine.media.encoder import BlockEncoder, max_bits_per_s
from engine.request import Quality
from kernels.yuv.formula import rgb_to_yuv420p
from tests.media.mp4_reading import FragmentFields, decode, media_timescale, read_fragment

FPS = 16
SIDE_PX = 64
TILE_PX = 16
CODED_SLICE = 1
"""NAL unit type of a slice of a frame that is no IDR."""
BITS = (SIDE_PX // TILE_PX) ** 2
BLOCK_LENGTHS = [9, 12, 12, 12, 5, 1]
"""The first block of a causal VAE is short, and the last one is cut."""


def painted(number: int) -> np.ndarray:
    """A grey picture whose tiles spell ``number`` in binary: [96, 64]."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], dtype=np.uint8).reshape(4, 4)
    luma = 50 + 150 * bits.repeat(TILE_PX, axis=0).repeat(TILE_PX, axis=1)
    return np.concatenate([luma, np.full((SIDE_PX // 2, SIDE_PX), 128, np.uint8)])


def number_in(planes: np.ndarray) -> int:
    tiles = planes[:SIDE_PX].reshape(4, TILE_PX, 4, TILE_PX).mean(axis=(1, 3)).reshape(-1)
    return sum(1 << bit for bit, level in enumerate(tiles) if level > 125)


def painted_block(first: int, length: int) -> np.ndarray:
    return np.stack([painted(number % 2**BITS) for number in range(first, first + length)])


def small_encoder(**arguments: int) -> BlockEncoder:
    return BlockEncoder(SIDE_PX, SIDE_PX, FPS, Quality.STANDARD, **arguments)


def encode_lengths(encoder: BlockEncoder, lengths: list[int], first: int = 0) -> list[bytes]:
    fragments = []
    for length in lengths:
        fragments.append(encoder.encode_block(painted_block(first, length)))
        first += length
    return fragments


@pytest.fixture(scope="module")
def stream() -> tuple[bytes, list[bytes]]:
    encoder = small_encoder()
    return encoder.init_segment, encode_lengths(encoder, BLOCK_LENGTHS)


def assert_continuous(fragments: list[FragmentFields], ticks_per_frame: int) -> None:
    for fragment in fragments:
        assert fragment.kinds == ["moof", "mdat"]
        assert set(fragment.durations) == {ticks_per_frame}
    for before, after in pairwise(fragments):
        assert after.sequence == before.sequence + 1
        assert after.decode_time == before.decode_time + sum(before.durations)


# --- M1: every fragment ---


def test_fragments_are_continuous_moof_mdat_pairs(stream: tuple[bytes, list[bytes]]) -> None:
    init_segment, data = stream
    ticks_per_frame, rest = divmod(media_timescale(init_segment), FPS)
    fragments = [read_fragment(fragment) for fragment in data]
    assert rest == 0
    assert (fragments[0].sequence, fragments[0].decode_time) == (1, 0)
    assert [len(fragment.sizes) for fragment in fragments] == BLOCK_LENGTHS
    assert_continuous(fragments, ticks_per_frame)


def test_fragments_start_with_a_sync_sample_and_hold_no_b_frame(stream: tuple[bytes, list[bytes]]) -> None:
    for fragment in map(read_fragment, stream[1]):
        assert fragment.sync == [True] + [False] * (len(fragment.sizes) - 1)
        assert not fragment.has_composition_offsets


def test_samples_fill_the_mdat_exactly(stream: tuple[bytes, list[bytes]]) -> None:
    for fragment in map(read_fragment, stream[1]):
        assert fragment.base_is_moof
        assert fragment.data_offset == fragment.moof_bytes + 8
        assert sum(fragment.sizes) == fragment.mdat_payload_bytes


# --- M2, M3: what a decoder sees ---


def test_concatenation_decodes_to_the_painted_numbers(stream: tuple[bytes, list[bytes]]) -> None:
    init_segment, data = stream
    pictures = decode(init_segment + b"".join(data))
    num_frames = sum(BLOCK_LENGTHS)
    assert [number_in(picture.planes) for picture in pictures] == list(range(num_frames))
    assert [picture.time_s for picture in pictures] == [Fraction(n, FPS) for n in range(num_frames)]
    starts = [sum(BLOCK_LENGTHS[:block]) for block in range(len(BLOCK_LENGTHS))]
    assert [n for n, picture in enumerate(pictures) if picture.is_key] == starts


@pytest.mark.parametrize("block", range(len(BLOCK_LENGTHS)))
def test_stream_may_be_joined_at_any_fragment(stream: tuple[bytes, list[bytes]], block: int) -> None:
    init_segment, data = stream
    pictures = decode(init_segment + b"".join(data[block:]))
    first, end = sum(BLOCK_LENGTHS[:block]), sum(BLOCK_LENGTHS)
    assert [number_in(picture.planes) for picture in pictures] == list(range(first, end))
    assert pictures[0].time_s == Fraction(first, FPS)


@pytest.mark.parametrize("last", range(len(BLOCK_LENGTHS)))
def test_stream_is_whole_at_every_fragment_boundary(stream: tuple[bytes, list[bytes]], last: int) -> None:
    init_segment, data = stream
    pictures = decode(init_segment + b"".join(data[: last + 1]))
    assert [number_in(picture.planes) for picture in pictures] == list(range(sum(BLOCK_LENGTHS[: last + 1])))


def test_a_cut_of_scene_inside_a_block_makes_no_other_key_frame() -> None:
    scenes = np.random.default_rng(0).integers(16, 236, (3, 96, SIDE_PX), dtype=np.uint8)
    encoder = small_encoder()
    fragments = [encoder.encode_block(scenes.repeat(4, axis=0)) for _ in range(4)]
    pictures = decode(encoder.init_segment + b"".join(fragments))
    assert [n for n, picture in enumerate(pictures) if picture.is_intra] == [0, 12, 24, 36]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_threads_cut_frames_into_slices_and_do_not_delay_them(num_threads: int) -> None:
    encoder = BlockEncoder(128, 128, FPS, Quality.STANDARD, num_threads)  # x264 needs 64 rows a slice
    fragment = encoder.encode_block(painted_block(0, 12).repeat(2, axis=1).repeat(2, axis=2))
    assert len(decode(encoder.init_segment + fragment)) == 12
    assert slices_of_last_frame(fragment) == num_threads


def slices_of_last_frame(fragment: bytes) -> int:
    sample = fragment[-read_fragment(fragment).sizes[-1] :]
    slices = 0
    while sample:
        unit_bytes = int.from_bytes(sample[:4], "big")
        slices += sample[4] & 0x1F == CODED_SLICE
        sample = sample[4 + unit_bytes :]
    return slices


# --- the init segment ---


def test_init_segment_is_known_before_frames_and_decodes_what_another_encoder_made() -> None:
    before_frames = small_encoder().init_segment
    assert [box.kind for box in split_boxes(before_frames)] == ["ftyp", "moov"]
    later = small_encoder(first_frame=5000, first_sequence=77)
    fragment = later.encode_block(painted_block(5000, 3))
    assert later.init_segment == before_frames
    assert [number_in(picture.planes) for picture in decode(before_frames + fragment)] == [5000, 5001, 5002]


@pytest.mark.parametrize(("width_px", "height_px"), [(64, 64), (832, 480)])
def test_codecs_string_is_what_the_configuration_record_says(width_px: int, height_px: int) -> None:
    encoder = BlockEncoder(width_px, height_px, FPS, Quality.STANDARD)
    record = encoder.init_segment.index(b"avcC") + 4
    profile_to_level = encoder.init_segment[record + 1 : record + 4]
    assert encoder.codecs == f"avc1.{profile_to_level.hex()}"
    assert profile_to_level[0] == 100, "High"


def test_codecs_string_follows_the_size() -> None:
    assert small_encoder().codecs != BlockEncoder(832, 480, FPS, Quality.STANDARD).codecs


@pytest.mark.parametrize("quality", Quality)
@pytest.mark.parametrize("side_px", [64, 128, 256])
def test_level_1b_is_never_declared(quality: Quality, side_px: int) -> None:
    assert int(BlockEncoder(side_px, side_px, FPS, quality).codecs[-2:], 16) >= 10


def test_container_names_the_colours() -> None:
    bt709 = (1).to_bytes(2, "big")
    assert b"colrnclx" + 3 * bt709 + b"\0" in small_encoder().init_segment


# --- colours ---


def test_coded_frames_are_tagged_bt709_limited() -> None:
    """The H.264 layer is read alone, so that no tag can come from the container."""
    encoder = small_encoder()
    record = encoder.init_segment.index(b"avcC")
    record_bytes = int.from_bytes(encoder.init_segment[record - 4 : record], "big") - 8
    _moof, mdat = split_boxes(encoder.encode_block(painted_block(0, 1)))
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.init_segment[record + 4 : record + 4 + record_bytes]
    (frame,) = decoder.decode(av.Packet(mdat.payload)) + decoder.decode(None)
    tags = (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)
    assert tags == (ColorRange.MPEG, Colorspace.ITU709, ColorPrimaries.BT709, ColorTrc.BT709)


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.5, 0.8)], ids=str)
def test_flat_colour_survives_encoder_and_decoder(colour: tuple[float, float, float]) -> None:
    encoder = BlockEncoder(SIDE_PX, SIDE_PX, FPS, Quality.HIGH)
    pixels_TCHW = torch.tensor(colour).view(1, 3, 1, 1).expand(3, 3, SIDE_PX, SIDE_PX)
    fragment = encoder.encode_block(rgb_to_yuv420p(pixels_TCHW))
    for picture in decode(encoder.init_segment + fragment):
        y, u, v = (plane.mean() for plane in np.split(picture.planes, [SIDE_PX, SIDE_PX * 5 // 4]))
        luma, red, blue = (y - 16) / 219, (v - 128) / 224 * 1.5748, (u - 128) / 224 * 1.8556
        green = (luma - 0.2126 * (luma + red) - 0.0722 * (luma + blue)) / 0.7152
        np.testing.assert_allclose((luma + red, green, luma + blue), colour, atol=0.015)


# --- time ---


def test_sixty_days_in_the_decode_time_is_exact_and_64_bit() -> None:
    first = FPS * 86400 * 60
    encoder = small_encoder(first_frame=first, first_sequence=first // 12 + 1)
    data = encode_lengths(encoder, [12, 12], first)
    fragments = [read_fragment(fragment) for fragment in data]
    ticks_per_frame = media_timescale(encoder.init_segment) // FPS
    assert fragments[0].decode_time_bytes == 8
    assert fragments[0].decode_time == first * ticks_per_frame > 2**32
    assert fragments[0].sequence == first // 12 + 1
    assert_continuous(fragments, ticks_per_frame)
    pictures = decode(encoder.init_segment + b"".join(data))
    assert [picture.time_s for picture in pictures] == [Fraction(n, FPS) for n in range(first, first + 24)]


def test_a_new_encoder_goes_on_where_the_old_one_stopped() -> None:
    old, new = small_encoder(), small_encoder(first_frame=21, first_sequence=3)
    data = encode_lengths(old, [9, 12]) + encode_lengths(new, [12, 4], first=21)
    assert_continuous([read_fragment(fragment) for fragment in data], media_timescale(old.init_segment) // FPS)
    pictures = decode(old.init_segment + b"".join(data))
    assert [number_in(picture.planes) for picture in pictures] == list(range(37))
    assert [picture.time_s for picture in pictures] == [Fraction(n, FPS) for n in range(37)]


@pytest.mark.parametrize("fps", [1, 24, 30, 60])
def test_other_rates_have_exact_ticks(fps: int) -> None:
    encoder = BlockEncoder(SIDE_PX, SIDE_PX, fps, Quality.DRAFT)
    fragments = [read_fragment(fragment) for fragment in encode_lengths(encoder, [3, 2])]
    ticks_per_frame, rest = divmod(media_timescale(encoder.init_segment), fps)
    assert rest == 0
    assert_continuous(fragments, ticks_per_frame)


# --- input, cost, lifetime ---


@pytest.mark.parametrize(
    "shape",
    [(0, 96, 64), (12, 64, 64), (12, 96, 32), (96, 64), (1, 12, 96, 64), ()],
    ids=lambda shape: f"{list(shape)}",
)
def test_wrong_shape_is_refused_and_both_shapes_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[T >= 1, 96, 64\]") as refusal:
        small_encoder().encode_block(np.zeros(shape, np.uint8))
    assert str(list(shape)) in str(refusal.value)


def test_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        small_encoder().encode_block(np.zeros((1, 96, 64), np.float32))


def test_odd_size_is_refused() -> None:
    with pytest.raises(ValueError, match="63x64"):
        BlockEncoder(63, 64, FPS, Quality.STANDARD)


def test_tensor_and_array_give_the_same_bytes() -> None:
    block = painted_block(0, 12)
    assert small_encoder().encode_block(torch.from_numpy(block)) == small_encoder().encode_block(block)


@pytest.mark.parametrize("quality", Quality)
def test_noise_stays_under_the_rate_bound(quality: Quality) -> None:
    noise = np.random.default_rng(0)
    encoder = BlockEncoder(SIDE_PX, SIDE_PX, FPS, quality)
    bound = max_bits_per_s(SIDE_PX, SIDE_PX, FPS, quality)
    coded_bytes = 0
    for block in range(1, 21):
        fragment = encoder.encode_block(noise.integers(16, 236, (12, 96, 64), dtype=np.uint8))
        coded_bytes += sum(read_fragment(fragment).sizes)
        assert coded_bytes * 8 <= 1.02 * bound * (1 + block * 12 / FPS)
    assert coded_bytes * 8 > 0.5 * bound * 15, "the bound was not under test"


def test_better_quality_spends_more() -> None:
    noise = np.random.default_rng(0).integers(100, 140, (12, 96, 64), dtype=np.uint8)
    sizes = [len(BlockEncoder(SIDE_PX, SIDE_PX, FPS, quality).encode_block(noise)) for quality in Quality]
    assert sizes == sorted(set(sizes))


def test_closed_encoder_refuses_blocks() -> None:
    encoder = small_encoder()
    encoder.close()
    encoder.close()
    with pytest.raises(AssertionError, match="closed"):
        encoder.encode_block(painted_block(0, 1))


def grown_bytes(process: psutil.Process, since: int) -> int:
    gc.collect()
    return int(process.memory_info().rss) - since


def test_three_hundred_blocks_leave_no_memory_behind() -> None:
    process, encoder = psutil.Process(), small_encoder()
    block = np.random.default_rng(0).integers(16, 236, (12, 96, SIDE_PX), dtype=np.uint8)  # large fragments
    for _ in range(50):
        encoder.encode_block(block)
    before = process.memory_info().rss
    for _ in range(300):
        encoder.encode_block(block)
    assert grown_bytes(process, before) < 1 << 20


def test_closed_encoders_leave_no_memory_behind() -> None:
    process, before, encoders = psutil.Process(), 0, []
    for index in range(13):
        encoder = BlockEncoder(832, 480, FPS, Quality.DRAFT)
        encoder.encode_block(np.full((1, 720, 832), 128, np.uint8))
        encoder.close()
        encoders.append(encoder)
        if index == 2:
            before = process.memory_info().rss
    assert grown_bytes(process, before) < 4 << 20
