"""A model of a few thousand weights and runners around it, in this process: for tests of the chain itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.config import Order, RolloutConfig, TransformerConfig
from engine.engine_config import Fault
from engine.law.schedule import latent_frames_in_block
from engine.messages import (
    BlockTicket,
    CloseTicket,
    LatentsSaved,
    OpenTicket,
    PromptTicket,
    Ticket,
    VideoBroken,
    WorkBegins,
)
from engine.model.dit import CausalWan
from engine.model.tensor_bytes import to_bytes
from engine.oracle import roll_out
from engine.request import Output, Quality
from engine.stage.noise import KeyedNoise
from engine.stage.pages import PagePool
from engine.stage.rehearsal import Faults
from engine.stage.runner import Runner
from engine.trace import Timer

TRANSFORMER = TransformerConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, text_dim=8, text_len=6, freq_dim=16, in_dim=4
)
HEIGHT, WIDTH, TOKENS = 4, 4, 12
CPU = torch.device("cpu")


def rollout(order: Order = Order.STEP_FIRST, window_blocks: int = 3, sink_blocks: int = 0) -> RolloutConfig:
    return RolloutConfig(order=order, window_latent_frames=3 * window_blocks, sink_latent_frames=3 * sink_blocks)


def model(num_layers: int = TRANSFORMER.num_layers) -> CausalWan:
    torch.manual_seed(7)
    network = CausalWan(replace(TRANSFORMER, num_layers=num_layers)).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("modulation"):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def embedding(seed: int) -> Tensor:
    return torch.randn(3, TRANSFORMER.text_dim, generator=torch.Generator().manual_seed(seed))


def block_shape(config: RolloutConfig, block: int) -> tuple[int, int, int, int]:
    return latent_frames_in_block(config, block), TRANSFORMER.in_dim, HEIGHT, WIDTH


def oracle(
    config: RolloutConfig,
    num_blocks: int,
    seed: int = 5,
    prompt: int = 1,
    *,
    initial: Sequence[Tensor] = (),
    changes: Mapping[int, int] | None = None,
) -> list[Tensor]:
    """The blocks of a video, by the readable twin of the engine. ``changes``: later prompts, by block."""
    noise = KeyedNoise(CPU)

    def padded(number: int) -> Tensor:
        rows = torch.zeros(TRANSFORMER.text_len, TRANSFORMER.text_dim)
        rows[:3] = embedding(number)
        return rows

    with torch.inference_mode():
        result = roll_out(
            model(),
            config,
            lambda b, step: noise(seed, b, step, block_shape(config, b)),
            padded(prompt),
            num_blocks,
            initial=initial,
            prompts={block: padded(number) for block, number in (changes or {}).items()},
        )
    return [result.latents[block] for block in range(num_blocks)]


class Bench:
    """A runner, and the runners behind it; what the runner delivers is collected by video and block."""

    def __init__(
        self,
        config: RolloutConfig,
        *,
        stages: tuple[int, ...] | None = None,
        following: "Bench | None" = None,
        max_segments: int = 2,
        num_pages: int = 40,
        num_layers: int = TRANSFORMER.num_layers,
        faults: tuple[Fault, ...] = (),
        page_dtype: torch.dtype = torch.float32,
        network: CausalWan | None = None,
    ) -> None:
        """``stages``: all of them unless said; ``following`` takes what this runner delivers; ``network``: or ours."""
        self.latents: dict[tuple[str, int], Tensor] = {}
        self.tickets: list[Ticket] = []
        self.told: list[LatentsSaved | VideoBroken] = []
        self.begun: list[tuple[str, ...]] = []
        self.timer = Timer(0)
        self._following = following
        self._config, self._sizes = config, dict[str, tuple[int, int, int]]()
        self.pool = PagePool(
            num_pages=num_pages,
            num_layers=num_layers,
            page_tokens=TOKENS,
            num_heads=TRANSFORMER.num_heads,
            head_dim=TRANSFORMER.head_dim,
            dtype=page_dtype,
            device=CPU,
            poison=True,
        )
        self.runner = Runner(
            model=network or model(num_layers),
            rollout=config,
            stages=tuple(range(config.num_stages)) if stages is None else stages,
            pool=self.pool,
            noise=KeyedNoise(CPU),
            deliver=self._deliver,
            tell=self._tell,
            timer=self.timer,
            max_segments=max_segments,
            faults=Faults(faults),
        )

    def _deliver(self, ticket: Ticket, latents: Tensor | None) -> None:
        self.tickets.append(ticket)
        if isinstance(ticket, OpenTicket):
            self._sizes[ticket.video] = (TRANSFORMER.in_dim, ticket.latent_height, ticket.latent_width)
        if isinstance(ticket, BlockTicket) and latents is not None:
            self.latents[ticket.video, ticket.block] = latents
        if self._following is not None:
            if isinstance(ticket, BlockTicket) and latents is None:
                shape = (latent_frames_in_block(self._config, ticket.block), *self._sizes[ticket.video])
                latents = torch.full(shape, torch.nan)  # as a worker hands over a void block
            self._following.runner.submit(ticket, latents)

    def _tell(self, message: WorkBegins | LatentsSaved | VideoBroken) -> None:
        if isinstance(message, WorkBegins):
            self.begun.append(message.videos)
        else:
            self.told.append(message)

    def open(self, video: str, seed: int = 5, prompt: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        self.runner.submit(
            OpenTicket(
                video=video,
                seed=seed,
                latent_height=size[0],
                latent_width=size[1],
                fps=16,
                quality=Quality.STANDARD,
                output=Output.LATENTS,
                embedding=to_bytes(embedding(prompt)),
            )
        )

    def block(self, video: str, block: int, *, last: bool = False, save: bool = False) -> None:
        opening = block == 0
        self.runner.submit(BlockTicket(video=video, block=block, num_frames=12, last=last, save=save, opening=opening))

    def prompt(self, video: str, prompt: int) -> None:
        self.runner.submit(PromptTicket(video=video, embedding=to_bytes(embedding(prompt))))

    def close(self, video: str) -> None:
        self.runner.submit(CloseTicket(video=video))

    def run(self) -> None:
        """Run all passes that can run, here and behind."""
        with torch.inference_mode():
            while self._tick():
                pass

    def _tick(self) -> bool:
        ran = self.runner.tick()
        return (self._following is not None and self._following._tick()) or ran


def chain(config: RolloutConfig, cuts: tuple[tuple[int, ...], ...], *, max_segments: int = 2) -> list[Bench]:
    """Benches that share a chain, its head first."""
    benches: list[Bench] = []
    for stages in reversed(cuts):
        following = benches[0] if benches else None
        benches.insert(0, Bench(config, stages=stages, following=following, max_segments=max_segments))
    return benches
