"""Pictures and clips to send, good and bad."""

import io
import struct
import zlib
from collections.abc import Iterable

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

STILLS = {"png": "rgb24", "mjpeg": "yuvj420p", "libwebp": "yuv420p"}
"""Codecs of pictures, and how they take colours."""


def gradient(width_px: int, height_px: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    red, green = x * 255 // (width_px - 1), y * 255 // (height_px - 1)
    return np.stack([red, green, np.full_like(red, 64)], -1).astype(np.uint8)


def still(picture_YXC: np.ndarray, codec: str = "png") -> bytes:
    encoder = CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width, _ = picture_YXC.shape
    encoder.pix_fmt = STILLS[codec]
    frame = VideoFrame.from_ndarray(picture_YXC, format="rgb24").reformat(format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def clip(
    frames: Iterable[np.ndarray], fps: int, codec: str = "libx264", options: dict[str, str] | None = None
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = None
        for frame_YXC in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=options or {"crf": "10"})
                stream.height, stream.width, _ = frame_YXC.shape
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(VideoFrame.from_ndarray(frame_YXC, format="rgb24")))
        assert stream is not None
        container.mux(stream.encode(None))
    return file.getvalue()


def greys(num_frames: int, width_px: int = 64, height_px: int = 64) -> list[np.ndarray]:
    """Frames whose brightness is 7 times their number."""
    return [np.full((height_px, width_px, 3), 7 * number % 256, np.uint8) for number in range(num_frames)]


def huge_png(width_px: int, height_px: int) -> bytes:
    """A black picture, small on the wire."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(1 + (width_px + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height_px)) + packer.flush()
    head = struct.pack(">IIBBBBB", width_px, height_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
NO_MEDIA = {
    "nothing at all": b" ",
    "a text": b"a red circle drifts to the right\n" * 9,
    "a zip": b"PK\x03\x04" + bytes(400),
    "an SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a playlist": PLAYLIST,
    "a concat list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a playlist that begins as MP4 does": b"\0\0\0\x10ftypisom\0\0\0\0" + PLAYLIST,
    "a GIF": b"GIF89a" + bytes(100),
    "a huge PNG": huge_png(30_000, 30_000),
}
