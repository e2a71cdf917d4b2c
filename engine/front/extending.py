"""What continues an ended video: the request for a new one. Pure.

The new video begins at the frame behind the last one that was shown. Where that is in the middle of a block, its block
0 is the rest of that block, which still follows the old prompt: nothing is lost between the two. All blocks before are
made again with their prompts, and not shown (``engine.front.pacing.Progress.before``), so it shows exactly what a
longer source would have shown.
"""

from dataclasses import replace

from engine.errors import BlockGone, Conflict
from engine.front.log import SCRIPT_LENGTH
from engine.front.video import Video
from engine.law.schedule import block_with_frame
from engine.request import Continuation, PromptAt, VideoRequest


def extended(video: Video, seconds: float, prompt: str | None, owner: str) -> VideoRequest:
    """The request for a video of this length that continues an ended one, with its last prompt or with another.

    Raises:
        Conflict: it has not ended, or has nothing that could be continued.
        BlockGone: too little is known of it.
    """
    if not video.has_outcome:
        raise Conflict(f"video {video.id} goes on by itself; extend it when it has ended", "id")
    if video.progress.done == 0:
        raise Conflict(f"video {video.id} ended before its first block; there is nothing to extend", "id")
    if not video.log.script:
        raise BlockGone(f"video {video.id} had more than {SCRIPT_LENGTH} prompts, too many to make it again", "id")
    continues = _continuation(video)
    text = continues.prompts[-1][1] if prompt is None else prompt
    return replace(
        video.request,
        prompts=(PromptAt(at_s=0.0, text=text),),
        seconds=seconds,
        is_cut=False,
        continues=continues,
        remixed_from=None,
        owner=owner,
    )


def _continuation(video: Video) -> Continuation:
    progress = video.progress
    shown = progress.start_frame(progress.done)
    if progress.num_frames is not None:
        shown = min(shown, progress.num_frames)
    first_frame = progress.origin_frame + shown
    last = block_with_frame(progress.rollout, first_frame - 1)
    script = ((progress.before + block, text) for block, text in sorted(video.log.script.items()))
    return Continuation(
        source=video.id,
        first_frame=first_frame,
        prompts=tuple((block, text) for block, text in script if block <= last),
    )
