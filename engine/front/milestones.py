"""Tells the observer what becomes of sessions: their start, each block, and when a changed prompt is seen.

Reads progress and never changes it. Knows no ticket and no worker.
"""

from collections import deque

from engine.front.pacing import Progress
from engine.front.session import Session
from engine.observe import Observer
from engine.request import Fragment


class Milestones:
    """What is to be told of running sessions."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._changes: dict[str, deque[tuple[int, float]]] = {}
        """By session: the first block of each changed prompt that its reader has not seen, and when it was asked."""
        self._started_at: dict[str, float] = {}

    def started(self, session: Session, now: float) -> None:
        """A session left the queue."""
        self._started_at[session.id] = now
        self._observer.session_started(now - session.progress.opened_at)

    def made(self, progress: Progress, fragment: Fragment, now: float) -> None:
        """A block left the chain; ``progress`` does not know of its time yet."""
        last = progress.last_done_at
        self._observer.block_made(fragment, None if last is None else now - last)

    def prompt_changed(self, session: Session, block: int, asked_at: float) -> None:
        """A session follows another prompt from ``block`` on."""
        self._changes.setdefault(session.id, deque()).append((block, asked_at))

    def taken(self, session: Session, lead_s: float | None, now: float) -> None:
        """The reader took a block, ``lead_s`` before it was due; the session's progress counts it already."""
        self._observer.block_taken(session.request.pace, lead_s)
        changes = self._changes.get(session.id)
        while changes and changes[0][0] < session.progress.taken:
            self._observer.prompt_followed(now - changes.popleft()[1])

    def ended(self, session: Session) -> None:
        """Nothing more comes of a session."""
        self._changes.pop(session.id, None)
        started_at, progress = self._started_at.pop(session.id, None), session.progress
        if started_at is not None and progress.last_done_at is not None:
            self._observer.session_made(progress.start_s(progress.done), progress.last_done_at - started_at)
