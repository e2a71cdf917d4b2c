"""Tells the observer what becomes of sessions: their start, each block, and when a changed prompt is seen.

Keeps nothing: what it needs is in the session. Knows no ticket and no worker.
"""

from engine.front.pacing import Progress
from engine.front.session import PromptChange, Session
from engine.observe import Observer
from engine.request import Fragment


class Milestones:
    """What is to be told of running sessions."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def started(self, session: Session, now: float) -> None:
        """A session left the queue."""
        session.started_at = now
        self._observer.session_started(now - session.progress.opened_at)

    def made(self, progress: Progress, fragment: Fragment, now: float) -> None:
        """A block left the chain; ``progress`` does not know of its time yet."""
        last = progress.last_done_at
        self._observer.block_made(fragment, None if last is None else now - last)

    def prompt_changed(self, session: Session, block: int, asked_at: float) -> None:
        """A session follows another prompt from ``block`` on."""
        session.prompt_changes.append(PromptChange(block, asked_at))

    def taken(self, session: Session, lead_s: float | None, now: float) -> None:
        """The reader took a block, ``lead_s`` before it was due; the session's progress counts it already."""
        self._observer.block_taken(session.request.pace, lead_s)
        changes = session.prompt_changes
        while changes and changes[0].block < session.progress.taken:
            self._observer.prompt_followed(now - changes.popleft().asked_at)

    def ended(self, session: Session) -> None:
        """Nothing more comes of a session."""
        session.prompt_changes.clear()
        progress = session.progress
        if session.started_at is not None and progress.last_done_at is not None:
            self._observer.session_made(progress.start_s(progress.done), progress.last_done_at - session.started_at)
