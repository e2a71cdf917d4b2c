"""What a step leaves: a result for people, whether it passed, and its numbers. And how long a step may take."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from benchmarks.gpu.record import Table

LEAST_SHARE = 0.5
"""Of what a step needs: one that would get less is not begun."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the first table."""

    name: str
    result: str
    passed: bool | None
    """None if it did not run."""
    numbers: dict[str, float] = field(default_factory=dict)
    """By name, with the unit at its end."""
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def verdict(self) -> str:
        """Whether it passed, for people."""
        return {True: "yes", False: "NO", None: "-"}[self.passed]

    def with_names(self, names: Mapping[str, str]) -> "Check":
        """The same check, with words in place of some texts: of paths, which mean nothing on another machine."""

        def told(text: str) -> str:
            for found in sorted(names, key=len, reverse=True):  # the longest first: one path can begin with another
                text = text.replace(found, names[found])
            return text

        return replace(self, result=told(self.result), notes=tuple(map(told, self.notes)))


def not_run(name: str, why: str) -> Check:
    """A check that could not be made."""
    return Check(name=name, result=f"not run: {why}", passed=None)


class Clock:
    """Time for all steps together, which run in the order of ``needs_s``.

    A step may take all that is left but for what those behind it need. So one that is slow or stands still uses up
    what others saved, and nothing else; when even that is gone, the first steps get what they need.
    """

    def __init__(
        self, budget_s: float, needs_s: Mapping[str, float], now: Callable[[], float] = time.monotonic
    ) -> None:
        """The clock starts. ``needs_s``: seconds that each step needs, by name."""
        self._needs_s, self._now = needs_s, now
        self._began_s, self._end_s = now(), now() + budget_s

    @property
    def took_s(self) -> float:
        """Seconds since the start."""
        return self._now() - self._began_s

    def limit_s(self, name: str) -> float:
        """Seconds that a step may take; 0 if too little is left for it."""
        names, need_s = list(self._needs_s), self._needs_s[name]
        later_s = sum(self._needs_s[later] for later in names[names.index(name) + 1 :])
        left_s = self._end_s - self._now()
        limit_s = min(left_s, max(need_s, left_s - later_s))
        return limit_s if limit_s >= LEAST_SHARE * need_s else 0.0


def attempt(name: str, limit_s: float, step: Callable[[float], Check]) -> Check:
    """The check that ``step`` makes within ``limit_s``; one that failed if it raises; ``not_run`` without time."""
    if limit_s <= 0:
        return not_run(name, "no time left")
    began_s = time.monotonic()
    try:
        check = step(limit_s)
    except Exception as error:  # noqa: BLE001 - whatever one step raises, the others can run
        traceback.print_exc()
        reason = (str(error).strip() or "no message").splitlines()[0]
        check = Check(name=name, result=f"{type(error).__name__}: {reason[:300]}", passed=False)
    return replace(check, took_s=time.monotonic() - began_s)
