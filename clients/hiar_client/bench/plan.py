"""What load to make: who comes when and does what, all of it decided by a seed. Asks no server and no clock."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hiar_client.objects import Pace

BEHAVIOURS = {
    "reader": "reads to the end as it comes",
    "slow": "takes its video at 0.7 of the speed at which it plays",
    "leaver": "leaves somewhere in the middle",
    "changer": "changes the prompt in the middle",
    "resumer": "loses its connection in the middle and comes back half a second later",
}
"""What a viewer can do."""

PROMPTS = (
    "a large red circle drifts to the right over a night sky",
    "a blue square bounces around on sand",
    "a white star spins clockwise in place at night",
    "a green triangle stays still on sand",
    "a yellow circle grows and shrinks over a pale sky",
    "a large blue star orbits around the middle at night",
    "a red square drifts down over a pale sky",
    "a white triangle changes color from white to red on sand",
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much of what. One of ``rate`` and ``concurrency`` is set, and at least one bound."""

    rate: float | None = None
    """Viewers that come in a second, on average, however many are there (open loop)."""
    concurrency: int | None = None
    """Viewers that are there at any time: one comes when another has gone (closed loop)."""
    duration_s: float | None = None
    """After which nobody comes any more."""
    requests: int | None = None
    """After which nobody comes any more."""
    mix: Mapping[str, float]
    """Weights of the behaviours."""
    prompts: tuple[str, ...] = PROMPTS
    seconds: float = 10.0
    """Length of each video."""
    pace: Pace = "realtime"
    size: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """One who will come."""

    number: int
    behaviour: str
    prompt: str
    next_prompt: str
    """Of a changer."""
    seed: int
    turn: float
    """Where in the video it does what it does, as a part of its length."""


def viewers(load: Load) -> Iterator[Viewer]:
    """Yield them in the order in which they come; the same for the same seed."""
    source = random.Random(load.seed)
    names, weights = list(load.mix), list(load.mix.values())
    number = 0
    while load.requests is None or number < load.requests:
        yield Viewer(
            number=number,
            behaviour=source.choices(names, weights)[0],
            prompt=load.prompts[number % len(load.prompts)],
            next_prompt=source.choice(load.prompts),
            seed=source.randrange(2**32),
            turn=source.uniform(0.2, 0.8),
        )
        number += 1


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Yield the seconds at which viewers come: a Poisson process."""
    source, at_s = random.Random(f"arrivals {seed}"), 0.0
    while True:
        at_s += source.expovariate(rate)
        yield at_s


def mix_of(text: str) -> dict[str, float]:
    """Weights out of ``reader=6,slow=1``. Raises ``ValueError``."""
    mix = {}
    for part in text.split(","):
        name, _, weight = (word.strip() for word in part.partition("="))
        if name not in BEHAVIOURS:
            raise ValueError(f"{name!r} is no behaviour; there are {', '.join(BEHAVIOURS)}")
        mix[name] = _weight(weight or "1")
    if not sum(mix.values()):
        raise ValueError("all weights are 0")
    return mix


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ValueError(f"the weight {text!r} is not a number of at least 0")
    return weight
