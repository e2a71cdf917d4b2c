"""What an observer is told of videos, block by block."""

from engine.front.milestones import Milestones
from engine.front.video import PromptChange, Video
from engine.observe import Observer
from engine.request import Fragment, Pace
from tests.front.making import request, video


class Notes(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def video_started(self, queued_s: float) -> None:
        self.told.append(("started", queued_s))

    def video_made(self, video_s: float, took_s: float) -> None:
        self.told.append(("ended", video_s, took_s))

    def block_made(self, fragment: Fragment, interval_s: float | None) -> None:
        self.told.append(("made", fragment.block, interval_s))

    def block_taken(self, pace: Pace, lead_s: float | None) -> None:
        self.told.append(("taken", pace, lead_s))

    def prompt_followed(self, latency_s: float) -> None:
        self.told.append(("followed", latency_s))


def fragment(block: int) -> Fragment:
    return Fragment(block=block, data=b"", num_frames=12, start_s=0.0, duration_s=0.75)


def test_a_video_is_told_from_start_to_end() -> None:
    notes, one = Notes(), video("a", request(fps=16))
    milestones = Milestones(notes)
    milestones.started(one, 101.5)
    milestones.made(one.progress, fragment(0), 102.0)
    one.progress.last_done_at = 102.0
    milestones.made(one.progress, fragment(1), 102.5)
    one.progress.done, one.progress.last_done_at = 2, 102.5
    milestones.ended(one)
    milestones.ended(video("b"))  # it never got a place
    assert notes.told == [("started", 1.5), ("made", 0, None), ("made", 1, 0.5), ("ended", 21 / 16, 1.0)]


def test_the_lead_is_what_is_left_until_a_block_must_play() -> None:
    """Playback begins with the second block, at 200; block 2 is due 9 + 12 frames later, at 201.3125."""
    notes, one = Notes(), video("a", request(fps=16))
    milestones = Milestones(notes)
    for now in (199.0, 200.0, 200.3125, 203.0625):
        milestones.taken(one, one.progress.take(now), now)
    assert [told[2] for told in notes.told] == [None, None, 1.0, -1.0]
    assert (one.progress.num_stalls, one.progress.stalled_s) == (1, 1.0)


def test_a_changed_prompt_is_followed_when_its_first_block_is_taken() -> None:
    notes, one = Notes(), video("a")
    milestones = Milestones(notes)
    one.prompt_changes.append(PromptChange(1, asked_at=10.0))
    one.prompt_changes.append(PromptChange(1, asked_at=11.0))
    one.prompt_changes.append(PromptChange(3, asked_at=12.0))
    followed = [take(milestones, one, notes, now) for now in (13.0, 14.0, 15.0, 16.0)]
    assert followed == [[], [4.0, 3.0], [], [4.0]]
    one.prompt_changes.append(PromptChange(9, asked_at=17.0))
    milestones.ended(one)
    one.progress.taken = 20
    assert take(milestones, one, notes, 18.0) == []


def take(milestones: Milestones, one: Video, notes: Notes, now: float) -> list[object]:
    """How late each prompt was that begins to be followed now."""
    notes.told.clear()
    milestones.taken(one, one.progress.take(now), now)
    return [told[1] for told in notes.told if told[0] == "followed"]
