"""Tickets as the desk writes them, and fragments as it reads them. Decides nothing."""

from engine.config import LATENT_STRIDE_PX
from engine.front.video import Video
from engine.law.schedule import frames_before_block
from engine.messages import BlockDone, BlockTicket, OpenTicket, TensorBytes
from engine.request import Fragment


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
    """Generate a block. ``save``: keep what its cache passes read."""
    progress = video.progress
    return BlockTicket(
        video=video.id,
        block=block,
        num_frames=progress.shown_frames(block),
        last=block + 1 == progress.num_blocks,
        save=save,
    )


def fragment_of(video: Video, message: BlockDone) -> Fragment:
    """A block as readers get it."""
    return Fragment(
        block=message.block,
        data=message.data if message.latents is None else message.latents.data,
        num_frames=message.num_frames,
        start_s=video.progress.start_s(message.block),
        duration_s=message.num_frames / video.request.fps,
    )
