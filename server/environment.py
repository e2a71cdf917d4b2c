"""Words of the environment that look like settings and are none: a misspelt one would be ignored without a word."""

import difflib
from collections.abc import Iterable

from server.option import ENV_PREFIX
from server.options import OPTIONS

_OTHERS = frozenset({"HIAR_GROUP_TOKEN", "HIAR_KEY", "HIAR_URL", "HIAR_FRONT_PID"})
"""Read elsewhere: by the nodes of a group, and by the clients."""
_SERVICE = "HIAR_SERVER_"
"""Kubernetes names the addresses of a service ``hiar-server`` so."""


def unknown_settings(names: Iterable[str]) -> list[str]:
    """A sentence for each name that begins like a setting's and is not one."""
    known = {option.env for option in OPTIONS} | _OTHERS
    asked = (name for name in sorted(names) if name.startswith(ENV_PREFIX) and not name.startswith(_SERVICE))
    return [_sentence(name, known) for name in asked if name not in known]


def _sentence(name: str, known: Iterable[str]) -> str:
    ends = sorted(one.removeprefix(ENV_PREFIX) for one in known)
    near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), ends, n=1)
    return f"{name} is no setting and is ignored" + (f"; did you mean {ENV_PREFIX}{near[0]}?" if near else "")
