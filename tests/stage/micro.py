"""A model of a few thousand weights and a runner around it, in this process: for tests of the chain itself."""

import torch
from torch import Tensor

from engine.config import Order, RolloutConfig, TransformerConfig
from engine.messages import BlockTicket, CloseTicket, OpenTicket, PromptTicket, Ticket
from engine.model.dit import CausalWan
from engine.model.tensor_bytes import to_bytes
from engine.request import Output, Quality
from engine.stage.noise import KeyedNoise
from engine.stage.pages import PagePool
from engine.stage.runner import Runner

TRANSFORMER = TransformerConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, text_dim=8, text_len=6, freq_dim=16, in_dim=4
)
HEIGHT, WIDTH, TOKENS = 4, 4, 12
CPU = torch.device("cpu")


def rollout(order: Order = Order.STEP_FIRST, window_blocks: int = 3, sink_blocks: int = 0) -> RolloutConfig:
    return RolloutConfig(order=order, window_latent_frames=3 * window_blocks, sink_latent_frames=3 * sink_blocks)


def model() -> CausalWan:
    torch.manual_seed(7)
    network = CausalWan(TRANSFORMER).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("modulation"):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def embedding(seed: int) -> Tensor:
    return torch.randn(3, TRANSFORMER.text_dim, generator=torch.Generator().manual_seed(seed))


class Bench:
    """A runner whose finished latents are collected by session and block."""

    def __init__(self, config: RolloutConfig, *, max_segments: int = 2, num_pages: int = 40) -> None:
        self.latents: dict[tuple[str, int], Tensor] = {}
        self.tickets: list[Ticket] = []
        self.pool = PagePool(
            num_pages=num_pages,
            num_layers=TRANSFORMER.num_layers,
            page_tokens=TOKENS,
            num_heads=TRANSFORMER.num_heads,
            head_dim=TRANSFORMER.head_dim,
            dtype=torch.float32,
            device=CPU,
            poison=True,
        )
        self.runner = Runner(
            model=model(),
            rollout=config,
            pool=self.pool,
            noise=KeyedNoise(CPU),
            deliver=self._deliver,
            max_segments=max_segments,
        )

    def _deliver(self, ticket: Ticket, latents: Tensor | None) -> None:
        self.tickets.append(ticket)
        if isinstance(ticket, BlockTicket) and latents is not None:
            self.latents[ticket.session, ticket.block] = latents

    def open(self, session: str, seed: int = 5, prompt: int = 1) -> None:
        self.runner.submit(
            OpenTicket(
                session=session,
                seed=seed,
                latent_height=HEIGHT,
                latent_width=WIDTH,
                fps=16,
                quality=Quality.STANDARD,
                output=Output.LATENTS,
                embedding=to_bytes(embedding(prompt)),
            )
        )

    def block(self, session: str, block: int, *, last: bool = False) -> None:
        self.runner.submit(BlockTicket(session=session, block=block, num_frames=12, last=last))

    def prompt(self, session: str, prompt: int) -> None:
        self.runner.submit(PromptTicket(session=session, embedding=to_bytes(embedding(prompt))))

    def close(self, session: str) -> None:
        self.runner.submit(CloseTicket(session=session))

    def run(self) -> None:
        with torch.inference_mode():
            while self.runner.tick():
                pass
