"""Which way back a lost video takes, how long it waits, and when it ends."""

import pytest

from engine.config import RolloutConfig
from engine.engine_config import EngineConfig
from engine.front.kept import Recovery
from engine.front.pacing import Cursor
from engine.front.recovery import MAX_VAIN_LOSSES, Recoveries
from engine.front.video import Video, VideoState
from engine.law.placement import Plan
from tests.front import making

PLAN = making.plan(block_s=0.25)
GRACE_S, MAX_VIDEOS = 10.0, 2
REPLAYABLE = 20  # 10 s of 0.25 s blocks, and of two videos
NOW = 500.0


class Place:
    """Recoveries, and videos that are lost and found again as the engine does."""

    def __init__(self, grace_s: float = GRACE_S, rollout: RolloutConfig = making.TINY.rollout) -> None:
        self.config: EngineConfig = making.config(rollout, recovery_grace_s=grace_s, max_videos=MAX_VIDEOS)
        self.recoveries = Recoveries(self.config)

    def video(self, name: str = "a", *prompts: int, linger_s: float | None = 0.0) -> Video:
        made = making.video(name, making.request(seconds=60.0), chain=0, linger_s=linger_s)
        made.log = making.prepared_log(self.config.manifest.rollout, *prompts)
        return made

    def make_blocks(self, video: Video, until: int, *, saved: bool = True) -> None:
        for block in range(video.progress.done, until):
            if saved and self.recoveries.needs_saving(block, PLAN):
                making.save_blocks(video.log, range(block, block + 1), self.config.manifest.rollout)
            video.progress.done = block + 1
            self.recoveries.note_progress(video, PLAN)

    def lose(self, video: Video, *, suspected: bool, now: float = NOW) -> bool:
        """Whether it waits."""
        waits = self.recoveries.may_wait(video, now, suspected=suspected)
        if waits:
            video.move(VideoState.RECOVERING)
        return waits

    def find(self, video: Video, plan: Plan = PLAN) -> int | None:
        block = self.recoveries.way_back(video, plan)
        video.move(VideoState.RUNNING)
        return block


def resume_at(
    done: int, *, saved: bool = True, rollout: RolloutConfig = making.TINY.rollout
) -> tuple[int | None, Recovery]:
    """The block at which a video goes on that was lost with ``done`` blocks, and what is remembered of it."""
    here = Place(rollout=rollout)
    video = here.video()
    here.make_blocks(video, done, saved=saved)
    assert here.lose(video, suspected=False)
    block = here.find(video)
    [recovery] = video.recoveries
    return block, recovery


def test_replayable_is_what_fits_the_grace_with_all_places_taken() -> None:
    assert Place().recoveries.replayable_blocks(PLAN) == REPLAYABLE
    assert Place(grace_s=0.1).recoveries.replayable_blocks(PLAN) == 0
    uneven = making.plan(num_devices=2, block_s=0.4)
    assert Place().recoveries.replayable_blocks(uneven) == int(GRACE_S / (uneven.block_s(0) * MAX_VIDEOS)) == 25


@pytest.mark.parametrize("done", [0, 1, REPLAYABLE])
def test_a_young_video_is_made_again_exactly(done: int) -> None:
    assert resume_at(done) == (0, Recovery(block=done, exact=True))


@pytest.mark.parametrize("done", [REPLAYABLE + 1, 3 * REPLAYABLE])
@pytest.mark.parametrize("sinks", [0, 2])
def test_an_old_video_is_restored_approximately(done: int, sinks: int) -> None:
    rollout = RolloutConfig(sink_latent_frames=3 * sinks)
    assert resume_at(done, rollout=rollout) == (done, Recovery(block=done, exact=False))


@pytest.mark.parametrize("is_read", [False, True])
def test_an_old_job_is_made_again_exactly_unless_somebody_reads_it(is_read: bool) -> None:
    here = Place()
    video = here.video("a", 2, linger_s=None)
    here.make_blocks(video, 3 * REPLAYABLE)
    if is_read:
        video.readers.append(Cursor(first_block=0, next_block=0))
    assert here.lose(video, suspected=False)
    assert here.find(video) == (3 * REPLAYABLE if is_read else 0)
    assert video.recoveries == [Recovery(block=3 * REPLAYABLE, exact=not is_read)]


def test_an_old_video_whose_latents_were_not_saved_is_made_again() -> None:
    assert resume_at(REPLAYABLE + 5, saved=False) == (0, Recovery(block=REPLAYABLE + 5, exact=True))


def test_blocks_are_saved_once_a_video_could_become_too_old() -> None:
    window = making.TINY.rollout.window_blocks
    assert [block for block in range(40) if Place().recoveries.needs_saving(block, PLAN)] == list(
        range(REPLAYABLE - window, 40)
    )
    sunk = Place(rollout=RolloutConfig(sink_latent_frames=6)).recoveries
    assert [block for block in range(15) if sunk.needs_saving(block, PLAN)] == [0, 1, 13, 14]


def test_prompts_are_kept_while_the_video_may_be_made_again_and_then_as_restoring_needs_them() -> None:
    oldest = REPLAYABLE + 2 - making.TINY.rollout.window_blocks  # that block REPLAYABLE + 1 attends to
    before, after = oldest - 3, oldest + 1
    here = Place()
    video = here.video("a", 2, before, after)
    here.make_blocks(video, REPLAYABLE)
    assert set(video.log._prompts) == {0, 2, before, after}
    here.make_blocks(video, REPLAYABLE + 1)
    assert set(video.log._prompts) == {before, after}
    here.make_blocks(video, 60)
    assert set(video.log._prompts) == {after}


def test_prompts_of_a_video_that_cannot_be_restored_are_kept() -> None:
    here = Place()
    video = here.video("a", 2, 12)
    here.make_blocks(video, 60, saved=False)
    assert set(video.log._prompts) == {0, 2, 12}


def test_a_video_whose_first_prompts_are_forgotten_is_not_made_again() -> None:
    """The next workers may be planned quicker, so that it counts as young again."""
    here = Place()
    video = here.video("a", 12)
    here.make_blocks(video, REPLAYABLE + 5)
    assert here.lose(video, suspected=False)
    block = here.find(video, making.plan(num_devices=4, block_s=0.25))
    assert block == REPLAYABLE + 5 and video.log.opening_prompt(block) == making.embedding("prompt 12")


def test_a_video_of_which_too_little_is_known_has_no_way_back() -> None:
    here = Place()
    video = here.video("a", 12)
    here.make_blocks(video, REPLAYABLE + 5)
    video.log.forget_saved_before(200)
    video.progress.done = 150
    assert here.lose(video, suspected=False)
    assert here.recoveries.way_back(video, PLAN) is None and video.recoveries == []


def test_workers_that_die_over_the_same_block_end_its_video() -> None:
    here = Place()
    video = here.video()
    for _ in range(MAX_VAIN_LOSSES):
        assert here.lose(video, suspected=True)
        here.find(video)
    assert not here.lose(video, suspected=True)
    assert video.recoveries == [Recovery(block=0, exact=True)] * MAX_VAIN_LOSSES


def test_a_video_that_is_not_suspected_outlives_any_number_of_losses() -> None:
    here = Place()
    video = here.video()
    for _ in range(10):
        assert here.lose(video, suspected=False)
        here.find(video)
    for _ in range(MAX_VAIN_LOSSES):
        assert here.lose(video, suspected=True)
        here.find(video)
        assert here.lose(video, suspected=False)
        here.find(video)
    assert not here.lose(video, suspected=True)


def test_a_new_block_between_losses_clears_a_video() -> None:
    here = Place()
    video = here.video()
    for loss in range(3 * MAX_VAIN_LOSSES):
        video.progress.done += loss % MAX_VAIN_LOSSES == 0
        assert here.lose(video, suspected=True)
        here.find(video)
    assert not here.lose(video, suspected=True)


def test_losses_of_one_video_are_not_another_ones() -> None:
    here = Place()
    first, second = here.video("a"), here.video("b")
    for _ in range(MAX_VAIN_LOSSES):
        assert here.lose(first, suspected=True)
        here.find(first)
    assert here.lose(second, suspected=True)
    assert not here.lose(first, suspected=True)


def test_a_video_ends_when_the_grace_is_over() -> None:
    here = Place()
    first, second = here.video("a"), here.video("b")
    assert here.lose(first, suspected=False) and here.lose(second, suspected=False, now=NOW + 3)
    assert here.recoveries.overdue(NOW + GRACE_S - 0.01) == []
    assert here.recoveries.next_overdue_at == NOW + GRACE_S
    assert here.recoveries.overdue(NOW + GRACE_S) == [first]
    assert here.recoveries.next_overdue_at == NOW + GRACE_S + 3
    assert here.recoveries.overdue(NOW + GRACE_S + 3) == [second]
    assert here.recoveries.next_overdue_at is None
    assert here.recoveries.too_late.message == "no new workers served within 10 s after the loss"


def test_one_that_resumed_or_ended_is_not_given_up() -> None:
    here = Place()
    resumed, ended = here.video("a"), here.video("b")
    for video in (resumed, ended):
        assert here.lose(video, suspected=False)
    ended.move(VideoState.ENDED)
    assert here.recoveries.waiting() == [resumed]
    here.find(resumed)
    assert here.recoveries.overdue(NOW + 100) == [] and here.recoveries.next_overdue_at is None


def test_one_that_ended_while_it_waited_does_not_hide_the_next() -> None:
    here = Place()
    ended, other = here.video("a"), here.video("b")
    assert here.lose(ended, suspected=False) and here.lose(other, suspected=False, now=NOW + 1)
    ended.move(VideoState.ENDED)
    assert here.recoveries.overdue(NOW) == [] and here.recoveries.next_overdue_at == NOW + 1 + GRACE_S
