"""Tickets as the desk writes them, and fragments as it reads them. Decides nothing.

A video that continues another counts its own blocks from 0; workers count on from the other's. The two numbers meet
here, and in the log for what restores a video.
"""

from dataclasses import replace

from engine.config import LATENT_STRIDE_PX, RolloutConfig
from engine.front.video import Video
from engine.law.schedule import start_blocks
from engine.messages import BlockDone, BlockRepeated, BlockTicket, ContextTicket, LatentsSaved, OfVideo, OpenTicket
from engine.request import Fragment, TensorBytes, VideoRequest


def num_given(request: VideoRequest, rollout: RolloutConfig) -> int:
    """First blocks that come with a request, or will be made of its picture."""
    return len(request.initial) if request.start is None else start_blocks(rollout, request.start.num_frames)


def open_ticket(video: Video, block: int, embedding: TensorBytes) -> OpenTicket:
    """A video begins, or begins again at a block."""
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
        from_frame=progress.start_frame(max(block, 0)),
        first_block=progress.before + progress.done,
        first_sequence=max(block, 0) + 1,
    )


def block_ticket(video: Video, block: int, *, save: bool) -> BlockTicket:
    """Generate a block, or show a given one. ``save``: keep what its cache passes read."""
    progress, initial = video.progress, video.request.initial
    at = progress.before + block
    return BlockTicket(
        video=video.id,
        block=at,
        num_frames=progress.shown_frames(block),
        num_skipped=progress.skipped_frames(block),
        last=block + 1 == progress.num_blocks,
        save=save,
        opening=at == len(initial),
        alone=len(initial) <= at < progress.rollout.block_first_blocks,
        given=initial[at] if at < len(initial) else None,
    )


def context_ticket(video: Video, block: int, latents: TensorBytes) -> ContextTicket:
    """A block that was finished alone becomes context."""
    return ContextTicket(video=video.id, block=video.progress.before + block, latents=latents)


def in_own_blocks(video: Video, message: OfVideo) -> OfVideo:
    """What a worker said, with the video's own block number in place of the worker's."""
    if video.progress.before == 0 or not isinstance(message, BlockDone | BlockRepeated | LatentsSaved):
        return message
    return replace(message, block=message.block - video.progress.before)


def fragment_of(video: Video, message: BlockDone) -> Fragment:
    """A block as readers get it."""
    return Fragment(
        block=message.block,
        data=message.data if message.latents is None else message.latents.data,
        num_frames=message.num_frames,
        start_s=video.progress.start_s(message.block),
        duration_s=message.num_frames / video.request.fps,
    )
