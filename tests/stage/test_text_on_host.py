"""Prompts on the host's CPU: a thread beside the passes embeds them, in order, and holds nothing up."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Manifest, VideoConfig
from engine.engine_config import EngineConfig
from engine.law.placement import Placement
from engine.messages import (
    Beat,
    BlockTicket,
    EncodePrompt,
    OpenTicket,
    PromptEncoded,
)
from engine.model.tensor_bytes import to_bytes, to_tensor
from engine.request import Output, Quality
from engine.stage.lane import Lane
from engine.stage.progress import Progress
from engine.stage.rigs import rig_of
from tests.stage import micro

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def as_a_worker_runs() -> Iterator[None]:
    with torch.inference_mode():
        yield


@dataclass
class SlowPrompts:
    """A text encoder that waits for its gate."""

    module = None
    gate: threading.Event = field(default_factory=threading.Event)
    threads: list[str] = field(default_factory=list)

    def embed(self, prompt: str) -> Tensor:
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(WAIT_S)
        return micro.embedding(len(prompt))


def chain(prompts: SlowPrompts, told: "queue.SimpleQueue[Any]", *, on_host: bool) -> Lane:
    placement = Placement(
        rank=0,
        device="cpu",
        chain=0,
        stages=(0, 1, 2, 3),
        decodes=False,
        embeds_text=True,
        text_on_host=on_host,
        previous=None,
        next=None,
        load_s=1.0,
    )
    manifest = Manifest(
        name="micro",
        transformer=micro.TRANSFORMER,
        rollout=micro.rollout(),
        video=VideoConfig(sizes=((32, 32),)),
        transformer_file=Path(),
    )
    config = EngineConfig(manifest=manifest)
    return Lane(
        config,
        placement,
        torch.device("cpu"),
        rig=rig_of(config),
        model=micro.model(),
        decoder=None,
        prompts=prompts,
        progress=Progress(lambda told: None),
        send=told.put,
    )


def test_passes_go_on_while_a_prompt_is_embedded() -> None:
    prompts, told = SlowPrompts(), queue.SimpleQueue[Any]()
    lane = chain(prompts, told, on_host=True)
    for request, text in enumerate(("a", "bb")):
        lane.accept(EncodePrompt(request=request, text=text))
    opening = OpenTicket(
        video="v",
        seed=1,
        latent_height=micro.HEIGHT,
        latent_width=micro.WIDTH,
        fps=16,
        quality=Quality.STANDARD,
        output=Output.LATENTS,
        embedding=to_bytes(micro.embedding(1)),
    )
    lane.accept(opening)
    lane.accept(BlockTicket(video="v", block=0, num_frames=9, last=False))
    while lane.work():
        pass
    before = list(iter_now(told))
    assert not any(isinstance(message, PromptEncoded) for message in before)
    assert max(message.tickets_passed for message in before if isinstance(message, Beat)) == 2
    prompts.gate.set()
    answers = [told.get(timeout=WAIT_S) for _ in range(2)]
    assert [answer.request for answer in answers] == [0, 1]
    assert torch.equal(to_tensor(answers[1].embedding), micro.embedding(2))
    assert prompts.threads == ["text", "text"]


def test_on_the_device_the_thread_that_computes_embeds_them() -> None:
    prompts, told = SlowPrompts(), queue.SimpleQueue[Any]()
    prompts.gate.set()
    lane = chain(prompts, told, on_host=False)
    lane.accept(EncodePrompt(request=7, text="abc"))
    assert told.get_nowait().request == 7 and prompts.threads == [threading.current_thread().name]


def iter_now(told: "queue.SimpleQueue[Any]") -> Iterator[Any]:
    while not told.empty():
        yield told.get_nowait()
