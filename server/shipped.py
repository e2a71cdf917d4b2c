"""Where the files are that ship with the server and are no code: the small model and the player.

A wheel has them inside this package, as ``setup.py`` says; a checkout has them beside it.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def _folder(in_wheel: Path, in_checkout: Path) -> Path:
    return in_wheel if in_wheel.is_dir() else in_checkout


SMALL_MODEL = _folder(_PACKAGE / "models" / "tiny", _CHECKOUT / "models" / "tiny")
"""Served where no other model is named."""
PLAYER = _folder(_PACKAGE / "player" / "files", _CHECKOUT / "clients" / "player")
"""The page of the player and what it loads."""
