"""One setting as an operator gives it, and how common kinds of text are read. Knows no setting by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ENV_PREFIX = "HIAR_"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting: how its text is read and what to tell when it cannot be."""

    name: str
    read: Callable[[str], Any]
    expected: str
    help: str
    default: str | None = None
    """What the help says in place of the default's value."""
    of: type | None = None
    """The record that holds it; None is ``Settings``."""
    named: str | None = None
    """Its name there, where that is another."""

    repeats: bool = False
    """Whether the flag may be given several times, each with one or more values of a list."""
    is_switch: bool = False
    """Given alone, without a value, it means yes."""

    @property
    def field(self) -> str:
        """Its name in the record that holds it."""
        return self.named or self.name

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.removesuffix("_s").replace("_", "-")

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        return "SECONDS" if self.name.endswith("_s") else self.name.rpartition("_")[2].upper()

    @property
    def env(self) -> str:
        """As an environment variable."""
        return ENV_PREFIX + self.name.removesuffix("_s").upper()


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads an integer of a range."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def size_in_bytes(low: int, high: int) -> Callable[[str], int]:
    """Reads bytes of a range, or K, M or G of them: powers of 1024."""

    def read(text: str) -> int:
        power = "kmg".find(text[-1:].lower()) + 1 if text else 0
        value = int(text[:-1] if power else text) << 10 * power
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def positive(text: str) -> float:
    """Reads a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def not_negative(text: str) -> float:
    """Reads a number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def word(text: str) -> str:
    """Reads text that is not empty."""
    if not text.strip():
        raise ValueError(text)
    return text.strip()


def one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    """Reads one of some words, in any case."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return read


def yes_or_no(text: str) -> bool:
    """Reads true or false, as environments say it."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def list_of(read: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Reads items that commas part; no text is no item."""

    def read_all(text: str) -> tuple[str, ...]:
        return tuple(read(item.strip()) for item in text.split(",")) if text.strip() else ()

    return read_all
