"""A worker's lane: what waits for latents and what does not, what shares a forward, what is handed on and told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Manifest, VideoConfig
from engine.engine_config import EngineConfig, Rehearsal
from engine.errors import EngineOutOfMemory, VideoFailed
from engine.law.placement import Placement
from engine.messages import (
    Beat,
    BlockDone,
    BlockTicket,
    Cancel,
    CloseTicket,
    EncodePrompt,
    Idle,
    OpenTicket,
    PromptEncoded,
    PromptFailed,
    PromptTicket,
    RestoreTicket,
    Ticket,
    VideoClosed,
)
from engine.model.segments import PagedCache, SegmentBatch
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.request import Output, Quality
from engine.stage import lane as lane_module
from engine.stage.lane import Lane
from engine.stage.progress import Progress
from engine.stage.rehearsal import RehearsedDecoder, RehearsedModel, RehearsedPrompt
from engine.stage.rigs import rig_of
from tests.stage import micro

CPU = torch.device("cpu")
REHEARSAL = Rehearsal(pass_s=1e-9)
SHAPE = (3, micro.TRANSFORMER.in_dim, micro.HEIGHT, micro.WIDTH)
EMBEDDING = to_bytes(torch.zeros(1, micro.TRANSFORMER.text_dim))


class CountingModel(RehearsedModel):
    """Computes nothing; remembers how many segments each forward had."""

    def __init__(self) -> None:
        super().__init__(micro.TRANSFORMER, REHEARSAL)
        self.forwards: list[int] = []

    def __call__(self, batch: SegmentBatch, cache: PagedCache) -> Tensor:
        self.forwards.append(len(batch.latents_GFCYX))
        return super().__call__(batch, cache)


@dataclass
class End:
    """Stands for an inlet or an outlet: remembers what is expected or sent, in order."""

    tickets: list[BlockTicket] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def await_neighbour(self) -> None:
        pass

    def expect(self, ticket: BlockTicket, shape: tuple[int, ...]) -> None:
        self.tickets.append(ticket)
        self.shapes.append(shape)

    def send(self, ticket: BlockTicket, latents_FCYX: Tensor) -> None:
        self.tickets.append(ticket)
        self.tensors.append(latents_FCYX)


class Site:
    """A lane between neighbours that are not there."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        stages: tuple[int, ...] = (0, 1, 2, 3),
        *,
        previous: int | None = None,
        next: int | None = None,
        decodes: bool = False,
        max_segments: int | None = None,
    ) -> None:
        self.told: list[Any] = []
        self.model, self.inlet, self.outlet = CountingModel(), End(), End()
        monkeypatch.setattr(lane_module, "Inlet", lambda *arguments: self.inlet)
        monkeypatch.setattr(lane_module, "Outlet", lambda *arguments: self.outlet)
        config = EngineConfig(
            manifest=Manifest(
                name="micro",
                transformer=micro.TRANSFORMER,
                rollout=micro.rollout(),
                video=VideoConfig(sizes=((32, 32), (32, 16))),
                transformer_file=Path(),
            ),
            max_segments=max_segments,
            poison_pages=True,
            rehearsal=REHEARSAL,
        )
        placement = Placement(
            rank=1,
            device="cpu",
            chain=0,
            stages=stages,
            decodes=decodes,
            embeds_text=True,
            previous=previous,
            next=next,
            load_s=1.0,
        )
        self.lane = Lane(
            config,
            placement,
            CPU,
            rig=rig_of(config),
            model=self.model if stages else None,
            decoder=RehearsedDecoder(0.0) if decodes else None,
            prompts=RehearsedPrompt(micro.TRANSFORMER.text_dim),
            progress=Progress(lambda told: None),
            send=self.told.append,
        )
        self.lane.connect(lambda latents: None)

    def accept(self, *messages: Ticket | Cancel) -> None:
        for message in messages:
            self.lane.accept(message)

    def receive(self, *values: float) -> None:
        for value in values:
            self.lane.receive(torch.full(SHAPE, value))

    def work(self) -> int:
        """Do all that can be done; returns how many tickets have passed."""
        with torch.inference_mode():
            while self.lane.work():
                pass
        return max((beat.tickets_passed for beat in self.of_kind(Beat)), default=0)

    def of_kind(self, kind: type) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]


def opening(video: str, *, height: int = micro.HEIGHT) -> OpenTicket:
    return OpenTicket(
        video=video,
        seed=5,
        latent_height=height,
        latent_width=micro.WIDTH,
        fps=16,
        quality=Quality.STANDARD,
        output=Output.LATENTS,
        embedding=EMBEDDING,
    )


def block(video: str, number: int) -> BlockTicket:
    return BlockTicket(video=video, block=number, num_frames=12, last=False)


def number_in(latents: Tensor) -> float:
    """What rehearsed latents hold everywhere: the block's number when they are clean."""
    assert torch.allclose(latents, latents.flatten()[0].expand_as(latents), atol=1e-3)
    return round(float(latents.flatten()[0]), 2)


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Site:
    """The worker behind the first one: it has the last two denoise stages and hands clean blocks on."""
    return Site(monkeypatch, (2, 3), previous=0, next=2)


# --- what waits ---


def test_a_block_waits_for_its_latents_and_every_ticket_behind_it_waits_too(behind: Site) -> None:
    behind.accept(opening("a"), block("a", 0), opening("b"), PromptTicket(video="a", embedding=EMBEDDING))
    behind.accept(block("b", 0), CloseTicket(video="a"))
    assert behind.work() == 1, "only what stands before the first block"
    behind.receive(0.5)
    assert behind.work() == 4, "up to the second block, of another video"
    assert behind.of_kind(VideoClosed) == []
    behind.receive(0.5)
    assert behind.work() == 6
    assert [(sent.video, sent.block) for sent in behind.outlet.tickets] == [("a", 0), ("b", 0)]
    assert [closed.video for closed in behind.of_kind(VideoClosed)] == ["a"]


def test_latents_may_come_before_their_tickets(behind: Site) -> None:
    behind.receive(0.5, 0.5)
    assert behind.work() == 0
    behind.accept(opening("a"), block("a", 0), block("a", 1))
    assert behind.work() == 3
    assert [number_in(latents) for latents in behind.outlet.tensors] == [0, 1]


def test_latents_are_expected_in_ticket_order_with_the_shape_of_their_video(behind: Site) -> None:
    behind.accept(opening("a"), opening("b", height=2), block("b", 0), block("a", 0), block("b", 1))
    assert [(ticket.video, ticket.block) for ticket in behind.inlet.tickets] == [("b", 0), ("a", 0), ("b", 1)]
    assert [shape[2] for shape in behind.inlet.shapes] == [2, 4, 2]


def test_at_the_head_of_the_chain_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Site(monkeypatch, (0, 1), next=1)
    head.accept(opening("a"), block("a", 0), block("a", 1))
    assert head.work() == 3 and head.inlet.tickets == []
    assert [sent.block for sent in head.outlet.tickets] == [0, 1]


# --- what shares a forward ---


@pytest.mark.parametrize(("max_segments", "largest"), [(1, 1), (2, 2), (3, 3), (8, 8), (20, 8)])
def test_a_forward_holds_no_more_segments_than_it_may(
    monkeypatch: pytest.MonkeyPatch, max_segments: int, largest: int
) -> None:
    """A stage brings one denoise pass and the cache pass that it needs, so four stages never fill more than eight."""
    whole = Site(monkeypatch, max_segments=max_segments)
    whole.accept(opening("a"), opening("b"))
    for number in range(6):
        whole.accept(block("a", number), block("b", number))
    assert whole.work() == 14
    assert max(whole.model.forwards) == largest, whole.model.forwards
    passes = 2 * (6 * 4 + 6 * 4)
    assert sum(whole.model.forwards) == passes, "every denoise and cache pass once"


def test_work_runs_one_forward_and_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Site(monkeypatch, max_segments=1)
    whole.accept(opening("a"), block("a", 0))
    for count in range(1, 4):
        assert whole.lane.work() and len(whole.model.forwards) == count
        assert len(whole.of_kind(Beat)) == count
    whole.work()
    beats = len(whole.of_kind(Beat))
    assert not whole.lane.work() and len(whole.of_kind(Beat)) == beats, "nothing was done, so nothing is told"


# --- a video that nobody waits for ---


def test_tickets_of_a_cancelled_video_pass_uncomputed_in_their_places(behind: Site) -> None:
    behind.accept(opening("a"), opening("b", height=2), block("a", 0), block("b", 0), block("a", 1))
    behind.accept(Cancel(video="b"))
    behind.receive(0.5, 0.5, 0.5)
    assert behind.work() == 5
    assert [(sent.video, sent.block) for sent in behind.outlet.tickets] == [("a", 0), ("b", 0), ("a", 1)]
    first, void, second = behind.outlet.tensors
    assert [number_in(first), number_in(second)] == [0, 1]
    assert void.isnan().all() and void.shape[2] == 2, "the next worker waits for something of that shape"
    assert behind.model.forwards and behind.of_kind(VideoClosed) == []


def test_a_cancelled_video_gives_back_its_pages_at_its_close_and_its_name_is_free(behind: Site) -> None:
    behind.accept(opening("a"), block("a", 0))
    behind.receive(0.5)
    behind.work()
    assert behind.of_kind(Beat)[-1].pages_used > 0
    behind.accept(Cancel(video="a"), CloseTicket(video="a"), opening("a"), block("a", 0))
    behind.receive(0.5)
    behind.work()
    assert [closed.pages_used for closed in behind.of_kind(VideoClosed)] == [0]
    assert not behind.outlet.tensors[-1].isnan().any(), "the second video of that name is computed"


def test_a_cancel_that_comes_too_late_or_too_early_changes_nothing(behind: Site) -> None:
    behind.accept(Cancel(video="a"), opening("a"), block("a", 0), CloseTicket(video="a"))
    behind.receive(0.5)
    behind.work()
    behind.accept(Cancel(video="a"))
    assert number_in(behind.outlet.tensors[0]) == 0 and len(behind.of_kind(VideoClosed)) == 1
    behind.accept(opening("a"), block("a", 0))
    behind.receive(0.5)
    behind.work()
    assert number_in(behind.outlet.tensors[1]) == 0


# --- the end of the chain ---


@pytest.mark.parametrize("stages", [(), (2, 3)])
def test_the_last_worker_decodes_in_order_and_drops_what_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch, stages: tuple[int, ...]
) -> None:
    last = Site(monkeypatch, stages, previous=0, decodes=True)
    last.accept(opening("a"), opening("b"), block("a", 0), block("b", 0), block("a", 1))
    last.accept(Cancel(video="b"), CloseTicket(video="b"), CloseTicket(video="a"))
    last.receive(0, 0, 1)
    assert last.work() == 7
    assert [(done.video, done.block) for done in last.of_kind(BlockDone)] == [("a", 0), ("a", 1)]
    assert [number_in(to_tensor(done.latents)) for done in last.of_kind(BlockDone)] == [0, 1]
    assert [closed.video for closed in last.of_kind(VideoClosed)] == ["b", "a"]
    last.accept(opening("b"), block("b", 0))
    last.receive(0)
    assert last.work() == 9 and last.of_kind(BlockDone)[-1].video == "b", "another video of that name"
    assert last.outlet.tickets == []


def test_a_restored_block_is_neither_shown_nor_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tuple((stage, to_bytes(torch.full(SHAPE, 4.0))) for stage in range(4))
    last, head = Site(monkeypatch, decodes=True), Site(monkeypatch, (0, 1), next=1)
    for site in (last, head):
        site.accept(opening("a"), RestoreTicket(video="a", block=4, latents=saved), block("a", 5))
        assert site.work() == 3
    assert [done.block for done in last.of_kind(BlockDone)] == [5]
    assert [sent.block for sent in head.outlet.tickets] == [5]


# --- beside the chain ---


def test_a_prompt_is_embedded_at_once_whatever_waits(behind: Site) -> None:
    behind.accept(opening("a"), block("a", 0))
    behind.lane.accept(EncodePrompt(request=7, text="x"))
    (answer,) = behind.of_kind(PromptEncoded)
    assert answer.request == 7 and to_tensor(answer.embedding).shape == (1, micro.TRANSFORMER.text_dim)


def test_a_prompt_that_cannot_be_embedded_is_refused_and_the_next_is_not(
    behind: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embed = RehearsedPrompt.embed

    def fail_for_x(self: RehearsedPrompt, text: str) -> Tensor:
        match text:
            case "bug":
                raise KeyError("nobody foresaw this")
            case "long":
                raise torch.OutOfMemoryError("tried to allocate 1 GiB\nand more")
            case _:
                return embed(self, text)

    monkeypatch.setattr(RehearsedPrompt, "embed", fail_for_x)
    for request, text in enumerate(("bug", "long", "x")):
        behind.lane.accept(EncodePrompt(request=request, text=text))
    assert behind.of_kind(PromptFailed) == [
        PromptFailed(request=0, code=VideoFailed.code, message="embedding a prompt failed on cpu (KeyError)"),
        PromptFailed(
            request=1,
            code=EngineOutOfMemory.code,
            message="cpu had no memory left for embedding a prompt (tried to allocate 1 GiB)",
        ),
    ]
    assert [answer.request for answer in behind.of_kind(PromptEncoded)] == [2]
    assert "nobody foresaw this" in caplog.text


@pytest.mark.parametrize(("waits", "expected"), [(True, (2.0, 0.0)), (False, (0.0, 2.0))])
def test_rest_counts_as_waiting_for_a_neighbour_only_while_a_ticket_waits(
    behind: Site, waits: bool, expected: tuple[float, float]
) -> None:
    behind.accept(opening("a"), *([block("a", 0)] if waits else []))
    behind.work()
    behind.lane.rested(2.0)
    behind.lane.tell_idle()
    (idle,) = behind.of_kind(Idle)
    assert (idle.rests.input_s, idle.rests.none_s) == expected
