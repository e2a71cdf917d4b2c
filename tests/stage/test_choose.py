"""Which passes share a forward, without a network or a tensor."""

import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest

from engine.config import Order, RolloutConfig
from engine.law.schedule import noise_levels
from engine.messages import BlockTicket, CloseTicket, PromptTicket, RestoreTicket
from engine.request import TensorBytes
from engine.stage.choose import needs_forward, next_forward
from engine.stage.denoise import Arrival, DenoiseStage, StageVideo
from engine.stage.segment import Segment

if TYPE_CHECKING:
    from engine.model.segments import TextContext
    from engine.stage.pages import VideoPages

STEP_FIRST = RolloutConfig(window_latent_frames=9)
BLOCK_FIRST = RolloutConfig(order=Order.BLOCK_FIRST, window_latent_frames=9)
WIDE, NARROW = (3, 4, 4, 4), (3, 4, 2, 4)
LIMITS = [1, 2, 3, 8]
NO_BYTES = TensorBytes(data=b"", shape=(0,), dtype="float32")


class Stages:
    """All stages of a chain; videos are open everywhere."""

    def __init__(self, rollout: RolloutConfig = STEP_FIRST, first: int = 0) -> None:
        self.rollout = rollout
        self.stages = [DenoiseStage(index) for index in range(first, rollout.num_stages)]

    def __getitem__(self, index: int) -> DenoiseStage:
        return self.stages[index - self.stages[0].index]

    def open(self, *names: str, shape: tuple[int, int, int, int] = WIDE) -> "Stages":
        for stage in self.stages:
            for name in names:
                context, pages = cast("TextContext", object()), cast("VideoPages", object())
                stage.videos[name] = StageVideo(name, 0, shape[1:], context, pages)
        return self

    def wait(self, stage: int, name: str, block: int) -> None:
        """Block ``block`` arrives at the stage."""
        ticket = BlockTicket(video=name, block=block, num_frames=12, last=False, save=False)
        self[stage].arrivals.append(Arrival(ticket))

    def wait_to_restore(self, stage: int, name: str, block: int) -> None:
        self[stage].arrivals.append(Arrival(RestoreTicket(video=name, block=block, latents=())))

    def cached(self, stage: int, name: str, num_blocks: int) -> None:
        """The pages of the first blocks are written."""
        self[stage].videos[name].num_cached = num_blocks

    def due(self, stage: int, name: str, block: int) -> None:
        """The block's cache pass is due; all before it have run."""
        video = self[stage].videos[name]
        video.num_cached = block
        video.due = Segment(
            stage=self[stage],
            video=video,
            block=block,
            num_latent_frames=3,
            latents_FCYX=None,
            level=noise_levels(self.rollout)[stage + 1],
            context=video.context,
            pages=video.pages,
        )

    def choose(self, max_segments: int = 8) -> list[str]:
        """The next forward as text: ``C2 a1`` is the cache pass of block 1 of a in stage 2."""
        return [
            f"{'C' if s.ticket is None else 'D'}{s.stage.index} {s.video.name}{s.block}"
            for s in next_forward(self.stages, self.rollout, max_segments)
        ]


# --- one stage ---


def test_nothing_is_ready() -> None:
    assert Stages().open("a").choose() == []


@pytest.mark.parametrize("max_segments", LIMITS)
def test_a_first_block_needs_no_page(max_segments: int) -> None:
    stages = Stages().open("a")
    stages.wait(0, "a", 0)
    assert stages.choose(max_segments) == ["D0 a0"]


def test_a_block_waits_for_the_page_before_it() -> None:
    stages = Stages().open("a")
    stages.wait(0, "a", 2)
    stages.cached(0, "a", 1)
    assert stages.choose() == []
    stages.cached(0, "a", 2)
    assert stages.choose() == ["D0 a2"]


def test_a_due_cache_pass_joins_the_block_that_needs_it() -> None:
    stages = Stages().open("a")
    stages.due(0, "a", 0)
    stages.wait(0, "a", 1)
    assert stages.choose(2) == ["C0 a0", "D0 a1"]


def test_without_room_for_both_the_cache_pass_goes_alone() -> None:
    stages = Stages().open("a")
    stages.due(0, "a", 0)
    stages.wait(0, "a", 1)
    assert stages.choose(1) == ["C0 a0"]


def test_a_due_cache_pass_two_blocks_back_is_not_enough() -> None:
    stages = Stages().open("a")
    stages.due(0, "a", 0)
    stages.wait(0, "a", 2)
    assert stages.choose() == ["C0 a0"], "alone: nothing else is ready"


def test_a_stage_gives_its_first_block_only_and_no_block_behind_another_ticket() -> None:
    stages = Stages().open("a", "b")
    stages.wait(0, "a", 0)
    stages.wait(0, "b", 0)
    assert stages.choose() == ["D0 a0"]
    stages[0].arrivals.appendleft(Arrival(CloseTicket(video="c")))
    assert stages.choose() == []


def test_choosing_changes_nothing() -> None:
    stages = Stages().open("a")
    stages.due(0, "a", 0)
    stages.wait(0, "a", 1)
    assert stages.choose() == stages.choose() == ["C0 a0", "D0 a1"]


# --- several stages and videos ---


def test_the_most_downstream_pass_comes_first_and_cache_passes_lead() -> None:
    stages = Stages().open("a")
    for stage in range(4):
        stages.due(stage, "a", 3 - stage)
        stages.wait(stage, "a", 4 - stage)
    cache, denoise = ["C3 a0", "C2 a1", "C1 a2", "C0 a3"], ["D3 a1", "D2 a2", "D1 a3", "D0 a4"]
    assert stages.choose(8) == cache + denoise
    assert stages.choose(7) == cache[:3] + denoise[:3]
    assert stages.choose(2) == ["C3 a0", "D3 a1"]
    assert stages.choose(1) == ["C3 a0"]


def test_a_stage_without_room_for_two_leaves_it_to_one_that_needs_one() -> None:
    stages = Stages().open("a", "b")
    stages.due(3, "a", 0)
    stages.wait(3, "a", 1)
    stages.wait(1, "b", 0)
    assert stages.choose(1) == ["D1 b0"]


def test_cache_passes_that_nobody_needs_yet_wait_while_a_denoise_pass_is_ready() -> None:
    stages = Stages().open("a", "b")
    stages.due(3, "a", 0)
    stages.wait(0, "b", 0)
    assert stages.choose() == ["D0 b0"]


def test_alone_cache_passes_go_by_stage_and_then_by_who_opened_first() -> None:
    stages = Stages().open("a", "b")
    for name in ("b", "a"):
        for stage in (0, 3):
            stages.due(stage, name, 0)
    assert stages.choose(8) == ["C3 a0", "C3 b0", "C0 a0", "C0 b0"]
    assert stages.choose(3) == ["C3 a0", "C3 b0", "C0 a0"]


def test_stages_of_a_later_worker() -> None:
    stages = Stages(first=2).open("a")
    stages.due(2, "a", 0)
    stages.wait(2, "a", 1)
    assert stages.choose() == ["C2 a0", "D2 a1"]


def test_a_forward_has_one_picture_size() -> None:
    stages = Stages().open("a").open("b", shape=NARROW)
    stages.wait(3, "a", 0)
    stages.wait(0, "b", 0)
    assert stages.choose() == ["D3 a0"]
    stages[3].arrivals.clear()
    assert stages.choose() == ["D0 b0"]
    stages[0].arrivals.clear()
    stages.due(1, "a", 0)
    stages.due(0, "b", 0)
    stages.due(0, "a", 0)
    assert stages.choose() == ["C1 a0", "C0 a0"]


def test_a_segment_says_what_it_computes() -> None:
    stages = Stages().open("a")
    stages.due(1, "a", 0)
    stages.wait(1, "a", 1)
    stages[1].videos["a"].context = new = cast("TextContext", object())
    cache, denoise = next_forward(stages.stages, STEP_FIRST, 2)
    levels = noise_levels(STEP_FIRST)
    assert (cache.level, denoise.level) == (levels[2], levels[1])
    assert denoise.context is new and cache.context is not new, "the prompt changed between the two blocks"
    assert denoise.video is stages[1].videos["a"] and denoise.ticket is stages[1].arrivals[0].ticket


# --- block-first: pages are those of the last stage ---


def test_every_stage_reads_the_pages_of_the_last() -> None:
    stages = Stages(BLOCK_FIRST).open("a")
    stages.wait(0, "a", 1)
    stages.cached(0, "a", 1)
    assert stages.choose() == []
    stages.due(3, "a", 0)
    assert stages.choose() == ["C3 a0", "D0 a1"]
    denoise = next_forward(stages.stages, BLOCK_FIRST, 2)[1]
    assert denoise.pages is stages[3].videos["a"].pages and denoise.video is stages[0].videos["a"]


def test_blocks_without_context_share_a_forward_and_its_one_cache_pass() -> None:
    stages = Stages(RolloutConfig(order=Order.BLOCK_FIRST, window_latent_frames=3)).open("a")
    stages.due(3, "a", 0)
    stages.wait(1, "a", 1)
    stages.wait(0, "a", 2)
    assert stages.choose() == ["C3 a0", "D1 a1", "D0 a2"]


def test_a_block_waits_until_the_open_ticket_is_where_the_pages_are() -> None:
    stages = Stages(BLOCK_FIRST).open("a")
    del stages[3].videos["a"]
    stages.wait(0, "a", 0)
    assert stages.choose() == []


# --- restore tickets ---


def test_a_restore_ticket_gets_the_cache_pass_that_stands_in_its_way() -> None:
    stages = Stages().open("a", "b")
    stages.due(2, "a", 4)
    stages.due(2, "b", 0)
    stages.wait_to_restore(2, "a", 5)
    stages.wait(0, "b", 0)
    assert stages.choose(2) == ["C2 a4", "D0 b0"]
    assert stages.choose(1) == ["C2 a4"]


def test_an_awaited_cache_pass_runs_once_even_if_nothing_else_is_ready() -> None:
    stages = Stages().open("a")
    stages.due(2, "a", 4)
    stages.wait_to_restore(2, "a", 5)
    assert stages.choose() == ["C2 a4"]


def test_an_awaited_cache_pass_of_another_size_waits() -> None:
    stages = Stages().open("a").open("b", shape=NARROW)
    stages.wait(3, "b", 0)
    stages.due(2, "a", 4)
    stages.wait_to_restore(2, "a", 5)
    assert stages.choose() == ["D3 b0"]


# --- tickets that need no forward ---


def test_who_needs_a_forward() -> None:
    stages = Stages().open("a")
    stages.wait(0, "a", 0)
    assert needs_forward(stages[0], STEP_FIRST, set()) and not needs_forward(stages[0], STEP_FIRST, {"a"})
    stages.wait_to_restore(1, "a", 1)
    assert not needs_forward(stages[1], STEP_FIRST, set())
    stages.due(1, "a", 0)
    assert needs_forward(stages[1], STEP_FIRST, set())
    for ticket in (PromptTicket(video="a", embedding=NO_BYTES), CloseTicket(video="a")):
        stages[2].arrivals.append(Arrival(ticket))
        assert not needs_forward(stages[2], STEP_FIRST, set())
        stages[2].arrivals.clear()


def test_the_policy_needs_no_torch() -> None:
    program = "import sys, engine.stage.choose; assert 'torch' not in sys.modules, 'torch was imported'"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
