"""A past video becomes one of this process again: its record says what was stored of it. Pure."""

from engine.front.kept import PastVideo
from engine.front.pacing import Cursor
from engine.front.prompts import own_prompts, source_prompts
from engine.front.story import Story
from engine.front.video import Video

MILLISECONDS = 1000


def refill(video: Video, past: PastVideo, now: float) -> None:
    """Fill the record of a video that has made nothing yet, which comes into this process now.

    The numbers of what happens to it begin at its age in milliseconds: behind all that it told before.
    """
    log, progress = video.log, video.progress
    log.texts = {0: past.request.prompts[0].text, **dict(past.prompts)}
    log.init_segment = past.init_segment
    log.refill(past.fragments)
    log.made_bytes += past.earlier_bytes
    progress.done = progress.taken = video.num_told = video.num_restored = log.next_block
    video.keeper = Cursor(first_block=log.next_block, next_block=log.next_block)
    video.past_prompts = past.prompts
    log.script = dict([*source_prompts(video), *own_prompts(video)])
    video.recoveries = list(past.recoveries)
    video.restored_at = now
    video.story = Story(int((now - progress.opened_at) * MILLISECONDS))
