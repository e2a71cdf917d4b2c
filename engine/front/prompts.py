"""Prompts and their embeddings: known by text, or asked of a worker; new videos get theirs, running ones new ones.

Questions outlive a worker: what was not answered is asked again of the next one. Pure; returns what is to be done.
"""

from collections import OrderedDict
from dataclasses import dataclass

from engine.config import RolloutConfig
from engine.errors import VIDEO_FAILURES, Conflict, HiarError, PromptReplaced, VideoFailed
from engine.front.events import Ask, Command, PromptRefused, PromptSet, Wake
from engine.front.story import Prompted
from engine.front.video import PromptChange, Video, VideoState, WaitingPrompt
from engine.messages import EncodePrompt, PromptEncoded, PromptFailed
from engine.observe import Observer
from engine.request import TensorBytes

REMEMBERED_PROMPTS = 64
RETRY_REPLACED_S = 1.0
BEGINS = frozenset({VideoState.QUEUED, VideoState.SLEEPING})
"""States in which the prompts of the request are embedded."""
TAKES_PROMPTS = frozenset({VideoState.QUEUED, VideoState.RUNNING, VideoState.RECOVERING, VideoState.SLEEPING})


@dataclass(frozen=True)
class Wanted:
    """A prompt that a video needs embedded."""

    text: str
    video: Video
    number: int | None
    """Of the ``PromptAsked`` that it answers; None for a prompt of the request."""
    asked_at: float


class Prompts:
    """Embeddings by prompt text, and open questions by their number."""

    def __init__(self, rollout: RolloutConfig, observer: Observer) -> None:
        self._rollout, self._observer = rollout, observer
        self._remembered: OrderedDict[str, TensorBytes] = OrderedDict()
        self._open: dict[int, Wanted] = {}
        self._next_request = 0
        self.prepared: list[Video] = []
        """Videos that may start now and are not known to the desk as such yet."""
        self.failed: list[tuple[Video, VideoFailed]] = []
        """Videos that never can, and why; the desk ends them."""

    def begin(self, video: Video, now: float) -> list[Command]:
        """Have the prompts of a new video embedded, one after the other: then it may start."""
        source, own = source_prompts(video), own_prompts(video)
        wanted = [text for _, text in [*source, *own]]
        if len(video.embedded) < len(wanted):
            return self._want(Wanted(wanted[len(video.embedded)], video, None, now))
        _follow_request(video, source, own)
        if video.first_prompt is not None:
            _follow(video, *video.first_prompt)
        if video.kept is not None:
            for mark in _news(video, own):
                video.kept.prompted(*mark)
        self.prepared.append(video)
        return [Wake(video)]

    def change(self, video: Video, text: str, number: int, now: float) -> list[Command]:
        """Have a video follow another prompt, from the next block that has no ticket when it is embedded.

        One prompt of a video is embedded at a time, and the newest waits: one that it replaces is refused.
        """
        if not _takes_prompts(video):
            return [_refused(video, number)]
        if not video.is_embedding:
            video.is_embedding = True
            return self._want(Wanted(text, video, number, now))
        replaced, video.waiting_change = video.waiting_change, WaitingPrompt(text, number, now)
        if replaced is None:
            return []
        error = PromptReplaced("a newer prompt of this video came before this one's turn", RETRY_REPLACED_S)
        return [PromptRefused(replaced.number, error)]

    def answer(self, message: PromptEncoded | PromptFailed, now: float) -> list[Command]:
        """What a worker said to a question; an answer that nobody waits for any more is dropped."""
        wanted = self._open.pop(message.request, None)
        if wanted is None:
            return []
        if isinstance(message, PromptFailed):
            return self._failed(wanted, VIDEO_FAILURES.get(message.code, VideoFailed)(message.message), now)
        self._remembered[wanted.text] = message.embedding
        if len(self._remembered) > REMEMBERED_PROMPTS:
            self._remembered.popitem(last=False)
        return self._embedded(wanted, message.embedding, now)

    def ask_again(self) -> list[Command]:
        """Put all open questions to a new worker."""
        return [Ask(EncodePrompt(request=request, text=wanted.text)) for request, wanted in self._open.items()]

    def give_up(self, error: HiarError) -> list[Command]:
        """No worker will answer any more."""
        left, self._open = list(self._open.values()), {}
        numbers = [wanted.number for wanted in left if wanted.number is not None]
        numbers += [one.video.waiting_change.number for one in left if one.video.waiting_change is not None]
        return [PromptRefused(number, error) for number in numbers]

    def _want(self, wanted: Wanted) -> list[Command]:
        known = self._remembered.get(wanted.text)
        self._observer.prompt_asked(remembered=known is not None)
        if known is not None:
            self._remembered.move_to_end(wanted.text)
            return self._embedded(wanted, known, wanted.asked_at)
        request, self._next_request = self._next_request, self._next_request + 1
        self._open[request] = wanted
        return [Ask(EncodePrompt(request=request, text=wanted.text))]

    def _embedded(self, wanted: Wanted, embedding: TensorBytes, now: float) -> list[Command]:
        video = wanted.video
        if wanted.number is not None:
            return [Wake(video), _change(video, wanted, wanted.number, embedding), *self._next_change(video, now)]
        if video.state not in BEGINS:
            return []  # closed meanwhile
        video.embedded.append(embedding)
        return self.begin(video, now)

    def _failed(self, wanted: Wanted, failure: VideoFailed, now: float) -> list[Command]:
        if wanted.number is not None:
            return [PromptRefused(wanted.number, failure), *self._next_change(wanted.video, now)]
        if wanted.video.state in BEGINS:
            self.failed.append((wanted.video, failure))
        return []

    def _next_change(self, video: Video, now: float) -> list[Command]:
        """The one before it is answered; the newest that waits has its turn."""
        video.is_embedding, waiting, video.waiting_change = False, video.waiting_change, None
        return [] if waiting is None else self.change(video, waiting.text, waiting.number, now)


def _change(video: Video, wanted: Wanted, number: int, embedding: TensorBytes) -> PromptSet | PromptRefused:
    if not _takes_prompts(video):
        return _refused(video, number)
    block = max(video.progress.issued, video.progress.done, video.progress.block_at(0.0))
    if video.log.is_prepared:
        _follow(video, block, wanted.text, embedding)
    else:
        video.first_prompt = block, wanted.text, embedding
    if video.kept is not None:
        video.kept.prompted(block, wanted.text)
    video.prompt_changes.append(PromptChange(block, wanted.asked_at))
    return PromptSet(number, block)


def _takes_prompts(video: Video) -> bool:
    return video.state in TAKES_PROMPTS or video.is_falling_asleep


def _refused(video: Video, number: int) -> PromptRefused:
    why = "has ended" if video.has_outcome else "has no more blocks"
    return PromptRefused(number, Conflict(f"video {video.id} takes no more prompts: it {why}", "id"))


def source_prompts(video: Video) -> list[tuple[int, str]]:
    """Own, mostly negative, block and text of each prompt of what it continues, up to where that ended."""
    continues, before = video.request.continues, video.progress.before
    return [] if continues is None else [(block - before, text) for block, text in continues.prompts]


def own_prompts(video: Video) -> list[tuple[int, str]]:
    """Block and text of each prompt that it begins with: of the request, and those of an earlier life."""
    asked = {video.progress.block_at(prompt.at_s): prompt.text for prompt in video.request.prompts}
    return sorted((asked | dict(video.past_prompts)).items())


def _news(video: Video, own: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those that its store does not know and that hold."""
    replaced = None if video.first_prompt is None else video.first_prompt[0]
    return [mark for mark in own if mark not in video.past_prompts and mark[0] != replaced]


def _follow_request(video: Video, source: list[tuple[int, str]], own: list[tuple[int, str]]) -> None:
    embedded = video.embedded[len(source) :]
    for (block, text), embedding in zip(source, video.embedded, strict=False):
        video.log.set_prompt(block, text, embedding)
    if source and own[0][1] == source[-1][1]:  # no new prompt: nothing is told to workers, who would take it for one
        video.story.tell(Prompted(0, 0.0, own[0][1]))
        own, embedded = own[1:], embedded[1:]
    for (block, text), embedding in zip(own, embedded, strict=True):
        _follow(video, block, text, embedding)


def _follow(video: Video, block: int, text: str, embedding: TensorBytes) -> None:
    video.log.set_prompt(block, text, embedding)
    video.story.tell(Prompted(block, video.progress.start_s(block), text))
