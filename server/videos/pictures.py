"""Small pictures of a video: one for a list, a sheet of many for a time line. Bytes in, bytes out; takes a while."""

import io
import math
from collections.abc import Sequence

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

THUMBNAIL_WIDTH_PX = 480
CELL_WIDTH_PX = 160
PICTURES_A_ROW = 10
PICTURES_MAX = 100
WEBP_QUALITY = "80"
JPEG_QUALITY = "4"
"""FFmpeg's scale: 2 is best, 31 worst."""


def thumbnail(init_segment: bytes, fragment: bytes) -> bytes:
    """The first picture of a fragment, as WebP, at most ``THUMBNAIL_WIDTH_PX`` wide."""
    picture = _first_picture(init_segment, fragment)
    width_px = min(picture.width, THUMBNAIL_WIDTH_PX)
    return _encoded(_rgb(picture, width_px), "libwebp", "yuv420p", {"quality": WEBP_QUALITY})


def sheet_blocks(kept: range) -> list[int]:
    """The blocks that a sheet shows: all, or ``PICTURES_MAX`` at equal distances."""
    count = min(len(kept), PICTURES_MAX)
    return [kept[index * len(kept) // count] for index in range(count)]


def spritesheet(init_segment: bytes, fragments: Sequence[bytes]) -> bytes:
    """The first picture of each fragment, ``PICTURES_A_ROW`` in a row, as JPEG. The rest of the last row is black."""
    cells = [_rgb(_first_picture(init_segment, fragment), CELL_WIDTH_PX) for fragment in fragments]
    height_px, width_px, _ = cells[0].shape
    num_rows = math.ceil(len(cells) / PICTURES_A_ROW)
    sheet_YXC = np.zeros((num_rows * height_px, PICTURES_A_ROW * width_px, 3), np.uint8)
    for index, cell_YXC in enumerate(cells):
        row, column = divmod(index, PICTURES_A_ROW)
        top, left = row * height_px, column * width_px
        sheet_YXC[top : top + height_px, left : left + width_px] = cell_YXC
    return _encoded(sheet_YXC, "mjpeg", "yuvj420p", {"qmin": JPEG_QUALITY, "qmax": JPEG_QUALITY})


def _first_picture(init_segment: bytes, fragment: bytes) -> VideoFrame:
    with av.open(io.BytesIO(init_segment + fragment), "r") as container:
        return next(container.decode(video=0))


def _rgb(picture: VideoFrame, width_px: int) -> np.ndarray:
    """Scaled to a width, with an even height: [Y, X, 3]."""
    height_px = max(2, round(picture.height * width_px / picture.width / 2) * 2)
    scaled = picture.reformat(width_px, height_px, "rgb24", src_colorspace="ITU709", interpolation="AREA")
    return scaled.to_ndarray()


def _encoded(picture_YXC: np.ndarray, codec: str, pixels: str, options: dict[str, str]) -> bytes:
    """One picture in a file of its own. Both kinds of file are of BT.601."""
    height_px, width_px, _ = picture_YXC.shape
    encoder = CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.options = width_px, height_px, pixels, options
    frame = VideoFrame.from_ndarray(picture_YXC, format="rgb24").reformat(format=pixels, dst_colorspace="ITU601")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
