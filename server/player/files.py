"""The files of the player: a fixed list, so that no name from a client ever becomes a path."""

from dataclasses import dataclass
from hashlib import sha256

from server.shipped import PLAYER

PAGE = "index.html"
NAMES = (
    "panels.css",
    "player.css",
    "icon.svg",
    "player.js",
    "api.js",
    "boxes.js",
    "composer.js",
    "controls.js",
    "elements.js",
    "events.js",
    "examples.js",
    "facts.js",
    "feed.js",
    "history.js",
    "keys.js",
    "menus.js",
    "picture.js",
    "pipeline.js",
    "plain.js",
    "playback.js",
    "playing.js",
    "prompts.js",
    "recent.js",
    "screen.js",
    "shown.js",
    "states.js",
    "stream.js",
)
"""What the page loads, each at its own address beside the page's."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class PlayerFile:
    """One of them, as it is answered."""

    data: bytes
    media_type: str
    etag: str


def read_file(name: str) -> PlayerFile:
    """Read one that is in the list, or the page."""
    data = (PLAYER / name).read_bytes()
    return PlayerFile(data, _TYPES[f".{name.rpartition('.')[2]}"], f'"{sha256(data).hexdigest()[:32]}"')
