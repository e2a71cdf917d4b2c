"""The state of the engine as a panel shows it: a number, its text and its colour."""

from deploy.observability.panels import GREEN, GREY, ORANGE, PURPLE, RED, YELLOW
from deploy.observability.promql import series

ENGINE_STATES = {
    1: ("starting", YELLOW),
    2: ("ready", GREEN),
    3: ("draining", PURPLE),
    4: ("restarting", ORANGE),
    5: ("failed", RED),
    6: ("stopped", GREY),
}


def engine_state() -> str:
    """One number for each server: the state that ``ENGINE_STATES`` gives it."""
    coded = (_series_of(state, code) for code, (state, _) in ENGINE_STATES.items())
    return f"max by (pod) ({' or '.join(coded)})"


def _series_of(state: str, code: int) -> str:
    matcher = f'state="{state}"'
    return f"{series('engine_state', matcher)} * {code}"
