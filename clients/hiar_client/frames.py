"""Decodes fragments into pictures, with PyAV, which is an extra of this package."""

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hiar_client.errors import ExtraMissing
from hiar_client.fragments import Fragment

if TYPE_CHECKING:
    import av


def decoded(init_segment: bytes) -> "Callable[[Fragment], Iterator[av.VideoFrame]]":
    """What decodes fragments behind this init segment: each begins anew. Raises ``ExtraMissing``."""
    try:
        import av  # noqa: PLC0415 - it is an extra
    except ImportError as error:
        raise ExtraMissing(
            "decoding pictures needs PyAV; install it with: pip install 'hiar-client[frames]'"
        ) from error

    def decode(fragment: Fragment) -> "Iterator[av.VideoFrame]":
        with av.open(io.BytesIO(init_segment + fragment.data), mode="r", format="mp4") as container:
            yield from container.decode(video=0)

    return decode
