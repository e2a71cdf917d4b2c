"""Tells a worker that hangs from one that has nothing to do, by what each has passed on. Pure; times are given.

All workers of a chain execute the same tickets in the same order, so a worker owes work exactly when the one before it
(for the head of the chain: the front) has passed more tickets than itself. One that owes and gives no sign of life for
the timeout is hung; a chain in which nobody owes may rest for ever.
"""

from dataclasses import dataclass

from engine.law.placement import Plan


@dataclass
class Pulse:
    """What is known of one worker."""

    tickets_passed: int = 0
    open_questions: int = 0
    """Prompts it was asked to embed and has not."""
    last_sign_at: float = 0.0
    """When it last gave a sign of life, or began to owe."""


class Watchdog:
    """Watches the workers of one group."""

    def __init__(self, plan: Plan, timeout_s: float) -> None:
        """Nothing is owed. ``timeout_s``: the longest silence of a worker that owes something."""
        self._plan, self._timeout_s = plan, timeout_s
        self._text_timeout_s = timeout_s
        self._pulses = [Pulse() for _ in plan.placements]
        self._tickets_sent = [0] * len(plan.chains)

    def slept(self, seconds: float) -> None:
        """The front itself stood still for so long: what workers said meanwhile it could not hear."""
        for pulse in self._pulses:
            pulse.last_sign_at += seconds

    def allow_text(self, seconds: float) -> None:
        """Let a worker that embeds a prompt be silent for so long, if that is more than others may."""
        self._text_timeout_s = max(self._timeout_s, seconds)

    def sent(self, chain: int, now: float) -> None:
        """A ticket went to all workers of a chain."""
        owed_before = self._owing()
        self._tickets_sent[chain] += 1
        self._start_clocks(owed_before, now)

    def asked(self, rank: int, now: float) -> None:
        """A worker was asked to embed a prompt."""
        owed_before = self._owing()
        self._pulses[rank].open_questions += 1
        self._start_clocks(owed_before, now)

    def answered(self, rank: int, now: float) -> None:
        """A worker embedded a prompt."""
        self._pulses[rank].open_questions -= 1
        self._pulses[rank].last_sign_at = now

    def beat(self, rank: int, tickets_passed: int, now: float) -> None:
        """A worker gave a sign of life."""
        owed_before = self._owing()
        self._pulses[rank].tickets_passed = tickets_passed
        self._pulses[rank].last_sign_at = now
        self._start_clocks(owed_before, now)

    def owed(self, rank: int) -> int:
        """Tickets that are this worker's to pass: the one before it has."""
        placement = self._plan.placements[rank]
        before = placement.previous
        handed = self._tickets_sent[placement.chain] if before is None else self._pulses[before].tickets_passed
        return handed - self._pulses[rank].tickets_passed

    def hung(self, now: float) -> int | None:
        """The rank that has been silent for longest beyond the timeout, if any."""
        silent = [
            (pulse.last_sign_at, rank)
            for rank, pulse in enumerate(self._pulses)
            if self._owes(rank) and now - pulse.last_sign_at > self._limit_s(rank)
        ]
        return min(silent)[1] if silent else None

    def _limit_s(self, rank: int) -> float:
        """A thread beside the passes embeds prompts on the host, so that tickets are no reason to be silent there."""
        embeds = self._pulses[rank].open_questions > 0
        beside = self._plan.placements[rank].text_on_host and self.owed(rank) > 0
        return self._text_timeout_s if embeds and not beside else self._timeout_s

    def _owing(self) -> set[int]:
        return {placement.rank for placement in self._plan.placements if self._owes(placement.rank)}

    def _owes(self, rank: int) -> bool:
        return self.owed(rank) > 0 or self._pulses[rank].open_questions > 0

    def _start_clocks(self, owed_before: set[int], now: float) -> None:
        """Who owes since just now has been silent since just now."""
        for rank in self._owing() - owed_before:
            self._pulses[rank].last_sign_at = now
