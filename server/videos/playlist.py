"""An HLS media playlist (RFC 8216, and its second edition for what is of low latency): one segment a block, which is
its only part too. Text alone: knows no video and no address but relative ones.
"""

import math
from collections.abc import Sequence

from server.http.tokens import with_token

LATE_ENTRIES = 4
"""Blocks that are dropped next are not told of any more: a client that has just read of one may still get it."""
SHOWN_ENTRIES = 3
"""But so many of the newest always are."""
PARTS_BEHIND = 3
"""Target durations from the end in which segments are told as parts too."""
HOLD_BACK_PARTS = 3
"""How far from the end a player should stay, as the standard advises."""
FURTHEST_RELOAD = 2
"""Blocks behind the newest that a reload may wait for, as the standard has it."""


def target_s(block_s: float) -> int:
    """The target duration: no block is longer, and it never changes."""
    return max(1, math.ceil(block_s))


def listed(kept: range) -> range:
    """The blocks to tell of. Its start never goes back."""
    if kept.start == 0:
        return kept
    return range(min(kept.start + LATE_ENTRIES, max(kept.start, kept.stop - SHOWN_ENTRIES)), kept.stop)


def playlist(
    first: int,
    durations_s: Sequence[float],
    block_s: float,
    *,
    is_ended: bool,
    hint: int | None,
    token: str | None = None,
) -> str:
    """The text.

    Args:
        first: number of the first block that is told of.
        durations_s: of the blocks from there on.
        block_s: the longest that a block can be.
        is_ended: whether nothing will be added.
        hint: the block that a client may ask for before it is there; None if none comes.
        token: lets a viewer in; every address carries it.
    """
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        f"#EXT-X-TARGETDURATION:{target_s(block_s)}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={_decimal(HOLD_BACK_PARTS * block_s)}",
        f"#EXT-X-PART-INF:PART-TARGET={_decimal(block_s)}",
        f"#EXT-X-MEDIA-SEQUENCE:{first}",
        f'#EXT-X-MAP:URI="{with_token("init.mp4", token)}"',
    ]
    behind_s = math.fsum(durations_s)
    for block, duration_s in enumerate(durations_s, first):
        uri, length = _uri(block, token), _decimal(duration_s)
        if behind_s <= PARTS_BEHIND * target_s(block_s):
            lines.append(f'#EXT-X-PART:DURATION={length},URI="{uri}",INDEPENDENT=YES')
        lines += [f"#EXTINF:{length},", uri]
        behind_s -= duration_s
    if is_ended:
        lines.append("#EXT-X-ENDLIST")
    elif hint is not None:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{_uri(hint, token)}"')
    return "\n".join([*lines, ""])


def _uri(block: int, token: str | None) -> str:
    return with_token(f"blocks/{block}.m4s", token)


def _decimal(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
