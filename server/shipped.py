"""Where the files are that ship with the server and are no code: the small model and the player.

A wheel has them inside this package, as ``setup.py`` says; a checkout has the same folders beside it.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_ROOT = _PACKAGE if (_PACKAGE / "models").is_dir() else _PACKAGE.parent

SMALL_MODEL = _ROOT / "models" / "tiny"
"""Served where no other model is named."""
PLAYER = _ROOT / "clients" / "player"
"""The page of the player and all that it loads."""
