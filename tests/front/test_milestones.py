"""What an observer is told of videos, block by block."""

import pytest

from engine.errors import HiarError, WorkerLost
from engine.front.milestones import Milestones
from engine.front.pacing import Cursor
from engine.front.video import PromptChange, Video
from engine.observe import Observer
from engine.request import EndReason, Fragment, Pace
from tests.front.making import request, video


class Notes(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def video_started(self, queued_s: float) -> None:
        self.told.append(("started", queued_s))

    def video_made(self, video_s: float, took_s: float) -> None:
        self.told.append(("all made", video_s, took_s))

    def video_ended(self, outcome: EndReason | HiarError, video_s: float, lived_s: float) -> None:
        self.told.append(("ended", outcome, video_s, lived_s))

    def block_made(self, fragment: Fragment, interval_s: float | None, lead_s: float | None) -> None:
        self.told.append(("made", fragment.block, interval_s, lead_s))

    def block_taken(self, pace: Pace) -> None:
        self.told.append(("taken", pace))

    def stood_still(self, seconds: float) -> None:
        self.told.append(("stood still", seconds))

    def prompt_followed(self, latency_s: float) -> None:
        self.told.append(("followed", latency_s))


class Watched:
    """A video with one reader that takes each block when it is made."""

    def __init__(self, pace: Pace = Pace.REALTIME) -> None:
        self.notes, self.video = Notes(), video("a", request(pace, fps=16))
        self.milestones = Milestones(self.notes)
        self.reader = Cursor(first_block=0, next_block=0)
        self.video.readers.append(self.reader)
        self.video.progress.leader = self.reader

    def make(self, *moments: float) -> list[tuple[object, ...]]:
        """What is told of blocks that come at these moments."""
        self.notes.told.clear()
        progress = self.video.progress
        for now in moments:
            self.milestones.watched(self.video, now)
            self.milestones.made(self.video, fragment(progress.done), now)
            progress.done, progress.last_done_at = progress.done + 1, now
            progress.take(self.reader, now)
            self.milestones.taken(self.video, now)
        return self.notes.told


def fragment(block: int) -> Fragment:
    return Fragment(block=block, data=b"", num_frames=12, start_s=0.0, duration_s=0.75)


def test_a_video_is_told_from_start_to_end() -> None:
    notes, one = Notes(), video("a", request(fps=16))
    milestones = Milestones(notes)
    milestones.started(one, 101.5)
    milestones.made(one, fragment(0), 102.0)
    one.progress.last_done_at = 102.0
    milestones.made(one, fragment(1), 102.5)
    one.progress.done, one.progress.last_done_at = 2, 102.5
    one.finish(EndReason.DRAIN)
    milestones.ended(one, 103.0)
    assert notes.told == [
        ("started", 1.5),
        ("made", 0, None, None),
        ("made", 1, 0.5, None),
        ("all made", 21 / 16, 1.0),
        ("ended", EndReason.DRAIN, 21 / 16, 3.0),
    ]


def test_one_that_never_got_a_place_ended_too() -> None:
    notes, one, loss = Notes(), video("b"), WorkerLost("gone")
    one.finish(loss)
    Milestones(notes).ended(one, 107.0)
    assert notes.told == [("ended", loss, 0.0, 7.0)]


@pytest.mark.parametrize("pace", Pace)
def test_the_lead_is_what_is_left_until_a_block_must_play(pace: Pace) -> None:
    """Playback begins with the second block, at 200; block 2 is due 9 + 12 frames later, at 201.3125."""
    watched = Watched(pace)
    told = watched.make(199.0, 200.0, 200.3125, 203.0625)
    leads = [entry[3] for entry in told if entry[0] == "made"]
    stood = [entry[1] for entry in told if entry[0] == "stood still"]
    realtime = pace is Pace.REALTIME
    assert leads == ([None, None, 1.0, -1.0] if realtime else [None] * 4)
    assert stood == ([1.0] if realtime else []), "nobody is paged for a fast video"
    assert (watched.video.progress.num_stalls, watched.video.progress.stalled_s) == (1, 1.0)


def test_a_picture_that_stands_still_is_told_while_it_does() -> None:
    watched = Watched()
    watched.make(199.0, 200.0)
    watched.notes.told.clear()
    for now in (201.0, 202.3125, 203.3125):
        watched.milestones.watched(watched.video, now)
    watched.video.finish(EndReason.CANCELLED)
    watched.milestones.watched(watched.video, 300.0)
    assert watched.notes.told == [("stood still", 1.0), ("stood still", 1.0)]


def test_nobody_watches_a_video_without_readers() -> None:
    watched = Watched()
    watched.make(199.0, 200.0)
    watched.video.readers.clear()
    assert watched.milestones.watched(watched.video, 300.0) is None and watched.video.progress.num_stalls == 0


def test_a_changed_prompt_is_followed_when_its_first_block_is_taken() -> None:
    watched = Watched()
    changes = watched.video.prompt_changes
    changes.append(PromptChange(1, asked_at=10.0))
    changes.append(PromptChange(1, asked_at=11.0))
    changes.append(PromptChange(3, asked_at=12.0))
    assert [followed(watched, now) for now in (13.0, 14.0, 15.0, 16.0)] == [[], [4.0, 3.0], [], [4.0]]
    changes.append(PromptChange(9, asked_at=17.0))
    watched.video.finish(EndReason.CANCELLED)
    watched.milestones.ended(watched.video, 17.5)
    watched.video.progress.taken = 20
    assert followed(watched, 18.0) == []


def followed(watched: Watched, now: float) -> list[object]:
    """How late each prompt was that begins to be followed now."""
    return [told[1] for told in watched.make(now) if told[0] == "followed"]


def test_ended_needs_an_outcome() -> None:
    one: Video = video("a")
    with pytest.raises(AssertionError, match="without an outcome"):
        Milestones(Notes()).ended(one, 1.0)
