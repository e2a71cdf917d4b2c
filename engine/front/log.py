"""What a video has made and was told, by block number: its block log (design, law 11). Append only.

For readers it holds fragments and the texts of prompts, as far back as a ``Keep`` says. For workers it holds what opens
the video again at a block. Two ways lead back. *Exact*: every block is made again from its noise keys, with the same
prompts at the same blocks; what is in the log is not encoded again. That takes as long as making it did, so it suits a
young video. *Approximate*: the latents that the cache passes of the last window read are kept here, about half a
megabyte a block and stage at 832x480; the new stages fill their pages from them. Keys and values above the first layer
were computed from older context that is gone, so what follows resembles the undisturbed video. Pure.
"""

from dataclasses import dataclass
from typing import Protocol

from engine.config import RolloutConfig
from engine.engine_config import Keep
from engine.front.story import CHARACTER_BYTES
from engine.law.window import attended_blocks, writes_pages
from engine.messages import LatentsSaved, PromptTicket, RestoreTicket
from engine.request import Fragment, TensorBytes

SCRIPT_LENGTH = 1024
"""Prompts of a video that are remembered."""


class FragmentStore(Protocol):
    """Where fragments lie, by block."""

    def put(self, fragment: Fragment) -> None:
        """Keep one."""
        ...

    def get(self, block: int) -> Fragment:
        """One that was put and not dropped."""
        ...

    def drop(self, block: int) -> None:
        """Keep it no longer."""
        ...


class MemoryStore:
    """Fragments in this process's memory."""

    def __init__(self) -> None:
        self._fragments: dict[int, Fragment] = {}

    def put(self, fragment: Fragment) -> None:
        """Keep one."""
        self._fragments[fragment.block] = fragment

    def get(self, block: int) -> Fragment:
        """One that was put and not dropped."""
        return self._fragments[block]

    def drop(self, block: int) -> None:
        """Keep it no longer."""
        del self._fragments[block]


@dataclass(frozen=True)
class InitSegment:
    """What a player needs before the first fragment."""

    data: bytes
    """``ftyp`` and ``moov``."""
    codecs: str
    """RFC 6381 string."""


class BlockLog:
    """The log of one video."""

    def __init__(
        self,
        video: str,
        rollout: RolloutConfig,
        keep: Keep,
        store: FragmentStore,
        *,
        num_given: int = 0,
        before: int = 0,
    ) -> None:
        """Begin it empty.

        Args:
            video: whose log it is.
            rollout: what says which blocks a block needs.
            keep: how much stays readable.
            store: where fragments lie.
            num_given: first blocks that came with the request.
            before: blocks before block 0, of what the video continues. They have negative numbers here.
        """
        self._before = before
        self._video, self._rollout, self._keep, self._store = video, rollout, keep, store
        self.init_segment: InitSegment | None = None
        """None before the first block."""
        self.first_block = 0
        """The earliest fragment that is kept."""
        self.next_block = 0
        """The first that is not made yet."""
        self.num_bytes = 0
        """Of the fragments that are kept."""
        self.made_bytes = 0
        """Of all fragments ever made."""
        self.texts: dict[int, str] = {}
        """Prompts by the block from which they hold, from the one that the earliest kept block follows."""
        self.script: dict[int, str] = {}
        """All prompts by the block from which they hold; empty if they were too many to be remembered."""
        self._prompts: dict[int, TensorBytes] = {}
        self._saved: dict[int, dict[int, TensorBytes]] = {}
        self._num_given, self._num_known = num_given, max(num_given, rollout.block_first_blocks)
        """First blocks that are clean context for every stage: given, or given and finished alone."""
        self._writers = {stage for stage in range(rollout.num_stages) if writes_pages(rollout, stage)}

    # --- what readers get ---

    def append(self, fragment: Fragment, *, unread: int) -> None:
        """Add the next block; drop old ones that need not be kept, but none from block ``unread`` on."""
        assert fragment.block == self.next_block, f"block {fragment.block} came, {self.next_block} is next"
        self._store.put(fragment)
        self.next_block += 1
        self.num_bytes += len(fragment.data)
        self.made_bytes += len(fragment.data)
        while self.first_block < min(unread, self.next_block - 1) and self._is_too_much(fragment):
            self._drop_first()

    def refill(self, fragments: tuple[Fragment, ...]) -> None:
        """Begin with blocks that were made before, the first of which need not be the video's."""
        if fragments:
            self.first_block = self.next_block = fragments[0].block
        for fragment in fragments:
            self.append(fragment, unread=fragment.block)

    def fragment(self, block: int) -> Fragment:
        """One that is kept."""
        assert self.first_block <= block < self.next_block, f"block {block} is not in the log"
        return self._store.get(block)

    def _is_too_much(self, newest: Fragment) -> bool:
        keep, first = self._keep, self._store.get(self.first_block)
        return (
            (keep.num_blocks is not None and self.next_block - self.first_block > keep.num_blocks)
            or (keep.seconds is not None and newest.start_s + newest.duration_s - first.start_s > keep.seconds)
            or (keep.num_bytes is not None and self.num_bytes > keep.num_bytes)
        )

    def _drop_first(self) -> None:
        self.num_bytes -= len(self._store.get(self.first_block).data)
        self._store.drop(self.first_block)
        self.first_block += 1
        held = max(at for at in self.texts if at <= self.first_block)
        self.texts = {at: text for at, text in self.texts.items() if at >= held}

    # --- what workers were told ---

    @property
    def is_prepared(self) -> bool:
        """Whether the prompts are known, without which no chain can be told anything."""
        return bool(self._prompts)

    def set_prompt(self, block: int, text: str, embedding: TensorBytes) -> None:
        """Follow a prompt from ``block`` on, until the next one."""
        self._prompts[block] = embedding
        self.texts[max(0, block)] = text  # of those before the video the last one holds
        if block == -self._before or self.script:
            self.script = {**self.script, block: text} if len(self.script) < SCRIPT_LENGTH else {}

    @property
    def script_bytes(self) -> int:
        """What the texts of all prompts take, at most."""
        return sum(CHARACTER_BYTES * len(text) for text in self.script.values())

    def prompt_at(self, block: int) -> TensorBytes:
        """The prompt that ``block`` follows."""
        return self._prompts[max(at for at in self._prompts if at <= block)]

    def prompt_change(self, block: int) -> PromptTicket | None:
        """The ticket to send before ``block``, if another prompt begins there."""
        if block == -self._before or block not in self._prompts:
            return None
        return PromptTicket(video=self._video, embedding=self._prompts[block])

    def save(self, message: LatentsSaved) -> None:
        """Keep what a cache pass read, as long as a restored video would need it. What was finished alone is read by
        the cache passes of all stages.
        """
        is_alone = self._num_given <= self._before + message.block < self._num_known
        stages = self._writers if is_alone else {message.stage}
        self._saved.setdefault(message.block, {}).update(dict.fromkeys(stages, message.latents))

    def forget_saved_before(self, block: int) -> None:
        """``block`` is the next to be made: drop latents that neither way back can need."""
        needed = set(self._attended(block))
        self._saved = {at: latents for at, latents in self._saved.items() if at in needed or at >= block}

    def forget_prompts_before(self, block: int) -> None:
        """The video is too old for an exact way back: keep the prompts that restoring ``block`` needs."""
        oldest = min(self._attended(block), default=0)
        holding = max(at for at in self._prompts if at <= oldest)
        self._prompts = {at: prompt for at, prompt in self._prompts.items() if at >= holding}

    def close(self) -> None:
        """No worker will be told anything any more: readers alone are left."""
        self._prompts, self._saved = {}, {}

    # --- the ways back ---

    def can_make_again(self) -> bool:
        """Whether no prompt is forgotten."""
        return -self._before in self._prompts

    def can_restore(self, block: int) -> bool:
        """Whether all latents that a video needs to go on at ``block`` are saved."""
        needed = self._attended(block)
        return all(self._saved.get(at, {}).keys() >= self._writers for at in needed)

    def can_open(self, block: int) -> bool:
        """Whether there is any way back to where ``block`` is the next one."""
        return self.can_make_again() or self.can_restore(block)

    def opening_prompt(self, block: int) -> TensorBytes:
        """The prompt to open a video with that goes on at ``block``, before ``restoring_tickets``."""
        return self.prompt_at(min(self._attended(block), default=block))

    def restoring_tickets(self, block: int) -> list[RestoreTicket | PromptTicket]:
        """What brings a newly opened video to where ``block`` is the next one: nothing for the very first."""
        tickets: list[RestoreTicket | PromptTicket] = []
        needed = self._attended(block)
        for index, at in enumerate(needed):
            if index > 0 and self.prompt_at(at) is not self.prompt_at(needed[index - 1]):
                tickets.append(PromptTicket(video=self._video, embedding=self.prompt_at(at)))
            latents = tuple(sorted(self._saved[at].items(), key=lambda item: item[0]))
            number = self._before + at
            is_clean = number < self._num_known
            tickets.append(RestoreTicket(video=self._video, block=number, latents=latents, clean=is_clean))
        return tickets

    def _attended(self, block: int) -> tuple[int, ...]:
        """Earlier blocks that passes of ``block`` attend to."""
        return tuple(at - self._before for at in attended_blocks(self._rollout, self._before + block))
