"""Which way back a lost session takes, how long it waits, and when it ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.config import EngineConfig, RolloutConfig
from engine.errors import HiarError, WorkerLost
from engine.front.course import Course
from engine.front.recovery import MAX_VAIN_LOSSES, Recoveries
from engine.front.session import Recovery, Session
from tests.front import making

PLAN = making.plan(block_s=0.25)
GRACE_S, MAX_VIDEOS = 10.0, 2
REPLAYABLE = 20  # 10 s of 0.25 s blocks, and of two sessions


class Place:
    """Recoveries, and the sessions they gave up; those are forgotten as the engine does."""

    def __init__(self, grace_s: float = GRACE_S, rollout: RolloutConfig = making.TINY.rollout) -> None:
        self.config: EngineConfig = making.config(rollout, recovery_grace_s=grace_s, max_videos=MAX_VIDEOS)
        self.recoveries = Recoveries(self.config, self._give_up)
        self.given_up: list[tuple[Session, HiarError]] = []
        self.ended = asyncio.Event()

    def _give_up(self, session: Session, error: HiarError) -> None:
        self.given_up.append((session, error))
        self.recoveries.forget(session)
        self.ended.set()

    def make_blocks(self, session: Session, course: Course, until: int, *, saved: bool = True) -> None:
        for block in range(session.progress.done, until):
            if saved and self.recoveries.needs_saving(block, PLAN):
                making.save_blocks(course, range(block, block + 1), self.config.manifest.rollout)
            session.progress.done = block + 1
            self.recoveries.note_progress(session, course, PLAN)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


def resume_at(done: int, *, saved: bool = True, rollout: RolloutConfig = making.TINY.rollout) -> tuple[int, Recovery]:
    """The block at which a session goes on that was lost with ``done`` blocks, and what is remembered of it."""
    resumed: list[tuple[Session, int]] = []

    async def body() -> None:
        here = Place(rollout=rollout)
        session, course = making.session("a", chain=0), making.course(rollout)
        here.make_blocks(session, course, done, saved=saved)
        assert here.recoveries.may_wait(session, course, suspected=False)
        resumed.extend(here.recoveries.resume(PLAN))
        assert here.recoveries.resume(PLAN) == [], "it resumes once"

    run(body)
    [(session, block)] = resumed
    [recovery] = session.recoveries
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


def test_an_old_video_whose_latents_were_not_saved_is_made_again() -> None:
    assert resume_at(REPLAYABLE + 5, saved=False) == (0, Recovery(block=REPLAYABLE + 5, exact=True))


def test_blocks_are_saved_once_a_session_could_become_too_old() -> None:
    window = making.TINY.rollout.window_blocks
    assert [block for block in range(40) if Place().recoveries.needs_saving(block, PLAN)] == list(
        range(REPLAYABLE - window, 40)
    )
    sunk = Place(rollout=RolloutConfig(sink_latent_frames=6)).recoveries
    assert [block for block in range(15) if sunk.needs_saving(block, PLAN)] == [0, 1, 13, 14]


def test_prompts_are_kept_while_the_video_may_be_made_again_and_then_as_restoring_needs_them() -> None:
    oldest = REPLAYABLE + 2 - making.TINY.rollout.window_blocks  # that block REPLAYABLE + 1 attends to
    before, after = oldest - 3, oldest + 1
    here, session, course = Place(), making.session("a"), making.course(making.TINY.rollout, 2, before, after)
    here.make_blocks(session, course, REPLAYABLE)
    assert set(course._prompts) == {0, 2, before, after}
    here.make_blocks(session, course, REPLAYABLE + 1)
    assert set(course._prompts) == {before, after}
    here.make_blocks(session, course, 60)
    assert set(course._prompts) == {after}


def test_prompts_of_a_video_that_cannot_be_restored_are_kept() -> None:
    here, session, course = Place(), making.session("a"), making.course(making.TINY.rollout, 2, 12)
    here.make_blocks(session, course, 60, saved=False)
    assert set(course._prompts) == {0, 2, 12}


def test_a_video_whose_first_prompts_are_forgotten_is_not_made_again() -> None:
    """The next workers may be planned quicker, so that it counts as young again."""

    async def body() -> None:
        here, session, course = Place(), making.session("a"), making.course(making.TINY.rollout, 12)
        here.make_blocks(session, course, REPLAYABLE + 5)
        assert here.recoveries.may_wait(session, course, suspected=False)
        [(_, block)] = here.recoveries.resume(making.plan(num_devices=4, block_s=0.25))
        assert course.opening_prompt(block) == making.embedding("prompt 12")
        assert block == REPLAYABLE + 5

    run(body)


def test_workers_that_die_over_the_same_block_end_its_session() -> None:
    async def body() -> None:
        here, session, course = Place(), making.session("a"), making.course()
        for _ in range(MAX_VAIN_LOSSES):
            assert here.recoveries.may_wait(session, course, suspected=True)
            here.recoveries.resume(PLAN)
        assert not here.recoveries.may_wait(session, course, suspected=True)
        assert here.recoveries.resume(PLAN) == [], "a session that was refused does not wait"
        assert session.recoveries == [Recovery(block=0, exact=True)] * MAX_VAIN_LOSSES

    run(body)


def test_a_session_that_is_not_suspected_outlives_any_number_of_losses() -> None:
    async def body() -> None:
        here, session, course = Place(), making.session("a"), making.course()
        for _ in range(10):
            assert here.recoveries.may_wait(session, course, suspected=False)
            here.recoveries.resume(PLAN)
        for _ in range(MAX_VAIN_LOSSES):
            assert here.recoveries.may_wait(session, course, suspected=True)
            here.recoveries.resume(PLAN)
            assert here.recoveries.may_wait(session, course, suspected=False)
            here.recoveries.resume(PLAN)
        assert not here.recoveries.may_wait(session, course, suspected=True)

    run(body)


def test_a_new_block_between_losses_clears_a_session() -> None:
    async def body() -> None:
        here, session, course = Place(), making.session("a"), making.course()
        for loss in range(3 * MAX_VAIN_LOSSES):
            session.progress.done += loss % MAX_VAIN_LOSSES == 0
            assert here.recoveries.may_wait(session, course, suspected=True)
            here.recoveries.resume(PLAN)
        assert not here.recoveries.may_wait(session, course, suspected=True)

    run(body)


def test_losses_of_one_session_are_not_another_ones() -> None:
    async def body() -> None:
        here, first, second = Place(), making.session("a"), making.session("b")
        for _ in range(MAX_VAIN_LOSSES):
            assert here.recoveries.may_wait(first, making.course(), suspected=True)
            here.recoveries.resume(PLAN)
        assert here.recoveries.may_wait(second, making.course(), suspected=True)
        assert not here.recoveries.may_wait(first, making.course(), suspected=True)
        assert [session.id for session, _ in here.recoveries.resume(PLAN)] == ["b"]

    run(body)


def test_a_session_ends_when_the_grace_is_over() -> None:
    async def body() -> None:
        here, session = Place(grace_s=0.01), making.session("a")
        assert here.recoveries.may_wait(session, making.course(), suspected=False)
        await here.ended.wait()
        [(ended, error)] = here.given_up
        assert ended is session and isinstance(error, WorkerLost)
        assert error.message == "no new workers served within 0.01 s after the loss"
        assert here.recoveries.resume(PLAN) == []

    run(body)


@pytest.mark.parametrize("ends", [False, True])
def test_one_that_resumed_or_ended_is_not_given_up(ends: bool) -> None:
    async def body() -> None:
        here, session, other = Place(grace_s=0.01), making.session("a"), making.session("b")
        assert here.recoveries.may_wait(session, making.course(), suspected=False)
        if ends:
            here.recoveries.forget(session)
        else:
            here.recoveries.resume(PLAN)
        assert here.recoveries.may_wait(other, making.course(), suspected=False)
        await here.ended.wait()  # the timer of ``session`` would have been first
        assert [one for one, _ in here.given_up] == [other]

    run(body)
