"""What passes the ends of a lane: latents, or the activations of a decoder that is cut there.

Both workers at a hand-over know its shape from the tickets, so no header travels. Pure but for the names of tensors.

Letters: F latent frames of a block, T frames, C channels, Y and X height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import RolloutConfig
from engine.engine_config import EngineConfig
from engine.law.placement import DecoderPart
from engine.law.schedule import latent_frames_in_block
from engine.law.sizes import DecoderUnit
from engine.messages import BlockTicket, OpenTicket, RestoreTicket, Ticket
from engine.request import Output
from engine.stage.handover import Shape


@dataclass
class _Passing:
    """A video."""

    output: Output
    size: tuple[int, int]
    """Latent height and width."""
    has_begun: bool = False
    """Whether a block of it has passed: the first one's shape is another."""


class End:
    """Where tensors come in, or go out. Every ticket is shown to it once, in order."""

    def __init__(self, rollout: RolloutConfig, num_channels: int, unit: DecoderUnit | None) -> None:
        """``num_channels``: of latents. ``unit``: the decoder's unit before it; None where latents pass."""
        self._rollout, self._num_channels, self._unit = rollout, num_channels, unit
        self._videos: dict[str, _Passing] = {}

    def open(self, ticket: OpenTicket) -> None:
        """A video begins."""
        size = ticket.latent_height, ticket.latent_width
        self._videos[ticket.video] = _Passing(ticket.output, size)

    def close(self, video: str) -> None:
        """It is over."""
        del self._videos[video]

    def shape_of(self, ticket: Ticket) -> Shape | None:
        """Shape of the tensor that passes with a ticket: [F, C, Y, X], or [T, C, Y, X] of activations; None if none.

        A known block is not denoised again, but what a decoder remembers of it is handed over.
        """
        if not isinstance(ticket, BlockTicket | RestoreTicket):
            return None
        video = self._videos[ticket.video]
        num_latent_frames = latent_frames_in_block(self._rollout, ticket.block)
        if self._unit is not None and video.output != Output.LATENTS:
            is_first, video.has_begun = not video.has_begun, True
            return self._unit.out_shape(num_latent_frames, video.size, is_first=is_first)
        if isinstance(ticket, RestoreTicket):
            return None
        return num_latent_frames, self._num_channels, *video.size


def ends_of(config: EngineConfig, part: DecoderPart | None, units: Sequence[DecoderUnit]) -> tuple[End, End]:
    """Where tensors come into a worker that runs such a part of a decoder, or none, and where they go out."""
    rollout, num_channels = config.manifest.rollout, config.manifest.transformer.in_dim
    before = None if part is None or part.is_first else units[part.begin - 1]
    behind = None if part is None or part.is_last else units[part.end - 1]
    return End(rollout, num_channels, before), End(rollout, num_channels, behind)
