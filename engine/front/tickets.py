"""Tickets as the desk writes them, and fragments as it reads them. Decides nothing."""

from engine.config import LATENT_STRIDE_PX, RolloutConfig
from engine.front.video import Video
from engine.law.schedule import frames_before_block, start_blocks
from engine.messages import BlockDone, BlockTicket, ContextTicket, OpenTicket
from engine.request import Fragment, TensorBytes, VideoRequest


def num_given(request: VideoRequest, rollout: RolloutConfig) -> int:
    """First blocks that come with a request, or will be made of its picture."""
    return len(request.initial) if request.start is None else start_blocks(rollout, request.start.num_frames)


def open_ticket(video: Video, embedding: TensorBytes) -> OpenTicket:
    """A video begins, or begins again behind what its log has."""
    request, progress = video.request, video.progress
    return OpenTicket(
        video=video.id,
        seed=request.seed,
        latent_height=request.height_px // LATENT_STRIDE_PX,
        latent_width=request.width_px // LATENT_STRIDE_PX,
        fps=request.fps,
        quality=request.quality,
        output=request.output,
        embedding=embedding,
        first_block=progress.done,
        first_frame=frames_before_block(progress.rollout, progress.done),
    )


def block_ticket(video: Video, block: int, *, save: bool) -> BlockTicket:
    """Generate a block, or show a given one. ``save``: keep what its cache passes read."""
    progress, initial = video.progress, video.request.initial
    return BlockTicket(
        video=video.id,
        block=block,
        num_frames=progress.shown_frames(block),
        last=block + 1 == progress.num_blocks,
        save=save,
        opening=block == len(initial),
        alone=len(initial) <= block < progress.rollout.block_first_blocks,
        given=initial[block] if block < len(initial) else None,
    )


def context_ticket(video: Video, block: int, latents: TensorBytes) -> ContextTicket:
    """A block that was finished alone becomes context."""
    return ContextTicket(video=video.id, block=block, latents=latents)


def fragment_of(video: Video, message: BlockDone) -> Fragment:
    """A block as readers get it."""
    return Fragment(
        block=message.block,
        data=message.data if message.latents is None else message.latents.data,
        num_frames=message.num_frames,
        start_s=video.progress.start_s(message.block),
        duration_s=message.num_frames / video.request.fps,
    )
