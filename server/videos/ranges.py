"""Conditional and partial requests for a file that never changes (RFC 9110, sections 13 and 14). Pure."""

import re
from collections.abc import Mapping


def wanted_range(headers: Mapping[str, str], etag: str, length: int) -> range | None:
    """The bytes that a request wants: None is the whole file, an empty range what is not there.

    One range is understood. What cannot be read, and several, are answered by the whole file, as the standard allows;
    so is a range of another file (``If-Range``).
    """
    if headers.get("if-range", etag) != etag:
        return None
    found = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", headers.get("range", ""), re.ASCII | re.IGNORECASE)
    if found is None or found.group(1, 2) == ("", ""):
        return None
    first, last = found.group(1, 2)
    if first == "":
        return range(max(0, length - int(last)), length)
    if last != "" and int(last) < int(first):
        return None
    return range(int(first), length if last == "" else min(int(last) + 1, length))


def begins_later(headers: Mapping[str, str]) -> bool:
    """Whether a request wants a part that is not the beginning, of a file whose length is not known."""
    return re.fullmatch(r"bytes=\s*(0*[1-9]\d*-\d*|-\d+)\s*", headers.get("range", ""), re.ASCII | re.I) is not None


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client has the file already."""
    tags = headers.get("if-none-match", "")
    return tags.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
