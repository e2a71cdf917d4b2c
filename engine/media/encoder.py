"""Blocks of pictures in, fragments out: one H.264 encoder a video and one short-lived MP4 muxer a block.

Knows nothing of latents, videos or HTTP. It is the only file of the engine that imports PyAV. Source:
``operations`` spec sections 2.3 (why a muxer a block, and its flags) and 2.4 (codec).

Shape letters: T frames of a block, P = height_px * 3 / 2 rows of the planes, W width_px.
"""

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import PictureType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from torch import Tensor

from engine.errors import EncoderFailed
from engine.media.boxes import codecs_string, split_boxes
from engine.request import Quality

CODEC: Final = "libx264"


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a quality may cost."""

    preset: str
    """How long x264 looks for the cheapest coding of a picture."""
    crf: int
    """Constant rate factor: the quality aimed at. Smaller is better; 6 less is about twice the bits."""
    max_kbit_per_s: int
    """Bound on the rate at 832x480 and 16 frames a second; see ``max_bits_per_s`` for others."""


SPENDING = {
    Quality.DRAFT: Spending(preset="superfast", crf=28, max_kbit_per_s=1000),
    Quality.STANDARD: Spending(preset="veryfast", crf=23, max_kbit_per_s=2500),
    Quality.HIGH: Spending(preset="veryfast", crf=18, max_kbit_per_s=6000),
}
"""Smooth moving content takes a third to a half of its bound; film grain and noise reach it."""

REFERENCE_PIXELS_PER_S = 832 * 480 * 16
RATE_EXPONENT = 0.75
"""Twice the pixels or frames need about 2 ** 0.75 times the bits, since neighbours are more alike."""
MIN_BITS_PER_S = 200_000
"""Below this a bound saves nothing, and would make x264 declare level 1b, which not every player knows."""

PERSISTENT_OPTIONS = {
    "tune": "zerolatency",
    "profile": "high",
    "bf": "0",  # a B frame would start the stream late, without an edit list to say so
    "sc_threshold": "0",
    "forced-idr": "1",
    "g": "100000",  # only a block's first frame, which is forced, is an IDR
}

MUXER_OPTIONS = {
    "movflags": "frag_custom+empty_moov+default_base_moof+frag_discont+skip_trailer",
    "avoid_negative_ts": "make_non_negative",  # else every block's decode time starts again at 0
}


def max_bits_per_s(width_px: int, height_px: int, fps: int, quality: Quality) -> int:
    """Return the bound on coded pictures: over any span of a stream, this rate for the span and one second more."""
    scale = math.pow(width_px * height_px * fps / REFERENCE_PIXELS_PER_S, RATE_EXPONENT)
    return max(MIN_BITS_PER_S, round(SPENDING[quality].max_kbit_per_s * 1000 * scale))


class BlockEncoder:
    """Encoder of one video's blocks. Its fragments, in order after ``init_segment``, are one MP4 stream.

    Any fragment is a join point: it starts with an IDR frame and carries its absolute decode time. A stream that was
    cut goes on with a new encoder of the same arguments and the next ``first_frame`` and ``first_sequence``; its bytes
    are others than those of an encoder that saw the blocks before, whose rate control remembers them. The same
    arguments and pictures give the same bytes.
    """

    init_segment: bytes
    """``ftyp`` and ``moov``; known before the first frame and the same for every encoder of these arguments."""
    codecs: str
    """RFC 6381 string ``avc1.PPCCLL``; the level depends on size, rate and quality."""

    def __init__(
        self,
        width_px: int,
        height_px: int,
        fps: int,
        quality: Quality,
        num_threads: int = 1,
        *,
        first_frame: int = 0,
        first_sequence: int = 1,
    ) -> None:
        """Open the encoder.

        Args:
            width_px: even.
            height_px: even.
            fps: frames a second of playback.
            quality: how many bits to spend.
            num_threads: slices that a frame is cut into, one thread each.
            first_frame: index in the video of the first frame that will come; it is played at ``first_frame / fps``.
            first_sequence: ``mfhd`` sequence number of the first fragment; 1 for a video's first block.

        Raises:
            ValueError: a side is odd.
            EncoderFailed: x264 does not take these sizes.
        """
        if width_px % 2 or height_px % 2:
            raise ValueError(f"size {width_px}x{height_px} is not even, as 4:2:0 needs")
        self._frame_shape = (height_px * 3 // 2, width_px)
        self._next_frame = first_frame
        self._next_sequence = first_sequence

        header = io.BytesIO()
        self._container = _open_muxer(header, first_sequence)
        self._stream: VideoStream | None = _add_encoder(
            self._container, width_px=width_px, height_px=height_px, fps=fps, quality=quality, num_threads=num_threads
        )
        try:
            self._container.start_encoding()
        except FFmpegError as error:
            raise EncoderFailed(f"{CODEC} did not open at {width_px}x{height_px}: {error.strerror}") from error
        self.init_segment = header.getvalue()
        self.codecs = codecs_string(self.init_segment)

    def encode_block(self, yuv_TPW: Tensor | npt.NDArray[np.uint8]) -> bytes:
        """Encode the next block and return its fragment: one ``moof`` and its ``mdat``.

        Args:
            yuv_TPW: uint8 on the CPU, I420 planes as ``kernels.yuv.formula`` lays them out; at least one frame.

        Raises:
            ValueError: shape or type is another one.
            EncoderFailed: the codec or the muxer raised an error, or a frame gave no packet. The stream cannot go on.
        """
        assert self._stream is not None, "the encoder is closed"
        frames_TPW = np.asarray(yuv_TPW)
        if frames_TPW.shape[1:] != self._frame_shape or len(frames_TPW) == 0:
            rows, width_px = self._frame_shape
            raise ValueError(f"block must be [T >= 1, {rows}, {width_px}], not {list(frames_TPW.shape)}")
        if frames_TPW.dtype != np.uint8:
            raise ValueError(f"block must be uint8, not {frames_TPW.dtype}")

        try:
            packets = [
                self._encode_frame(self._stream, frame_PW, starts_block=index == 0)
                for index, frame_PW in enumerate(frames_TPW)
            ]
            return self._mux(self._stream, packets)
        except FFmpegError as error:
            raise EncoderFailed(f"{CODEC} gave up before frame {self._next_frame}: {error.strerror}") from error

    def close(self) -> None:
        """Free the codec. Safe to repeat."""
        self._stream = None
        self._container.close()

    def _encode_frame(
        self, stream: VideoStream, frame_PW: npt.NDArray[np.uint8], *, starts_block: bool
    ) -> "Packet[VideoStream]":
        frame = av.VideoFrame.from_ndarray(frame_PW, format="yuv420p")
        frame.pts = self._next_frame
        frame.time_base = stream.codec_context.time_base
        frame.pict_type = PictureType.I if starts_block else PictureType.NONE
        packets = stream.encode(frame)
        if len(packets) != 1:
            raise EncoderFailed(f"frame {self._next_frame} gave {len(packets)} packets")
        self._next_frame += 1
        return packets[0]

    def _mux(self, stream: VideoStream, packets: list["Packet[VideoStream]"]) -> bytes:
        """Write a whole MP4 file of ``packets`` and keep the part that is not the init segment."""
        file = io.BytesIO()
        with _open_muxer(file, self._next_sequence) as muxer:
            track = muxer.add_stream_from_template(stream)
            for packet in packets:
                packet.stream = track
                packet.duration = 1  # frame; x264 leaves it open, and no successor tells it for a fragment's last one
                muxer.mux_one(packet)
        self._next_sequence += 1

        ftyp, moov, moof, mdat = split_boxes(file.getvalue())
        assert (moof.kind, mdat.kind) == ("moof", "mdat"), f"muxer wrote {moof.kind} and {mdat.kind}"
        assert ftyp.data + moov.data == self.init_segment, "the init segment changed"
        return moof.data + mdat.data


def _open_muxer(file: io.BytesIO, sequence: int) -> OutputContainer:
    """Open a muxer that writes ``ftyp`` and ``moov`` at once and its packets as one fragment when it is closed."""
    return av.open(file, "w", format="mp4", options={**MUXER_OPTIONS, "fragment_index": str(sequence)})


def _add_encoder(
    container: OutputContainer, *, width_px: int, height_px: int, fps: int, quality: Quality, num_threads: int
) -> VideoStream:
    """Add the track whose encoder lives as long as the video; opened by the container's ``start_encoding``."""
    spending = SPENDING[quality]
    max_rate = str(max_bits_per_s(width_px, height_px, fps, quality))
    stream = container.add_stream(
        CODEC,
        rate=fps,
        options={
            **PERSISTENT_OPTIONS,
            "preset": spending.preset,
            "crf": str(spending.crf),
            "maxrate": max_rate,
            "bufsize": max_rate,  # in bits: one second of the rate, a block and its IDR frame
        },
    )
    codec = stream.codec_context
    codec.width, codec.height, codec.pix_fmt = width_px, height_px, "yuv420p"
    codec.time_base = Fraction(1, fps)
    codec.thread_count = num_threads
    codec.color_range = ColorRange.MPEG
    codec.colorspace = Colorspace.ITU709
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    return stream
