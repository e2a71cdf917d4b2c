"""What a chain was told of one video, kept to tell it again to the next worker group.

Two ways back. *Exact*: every block is made again from its noise keys, with the same prompts at the same blocks; what
its reader has is not encoded again. That takes as long as making it did, so it suits a young video. *Approximate*: the
latents that the cache passes of the last window read are kept here, about half a megabyte a block and stage at
832x480; the new stages fill their pages from them. Keys and values above the first layer were computed from older
context that is gone, so what follows resembles the undisturbed video. Pure; knows no clock and no worker.
"""

from engine.config import RolloutConfig
from engine.law.schedule import attended_blocks, writes_pages
from engine.messages import LatentsSaved, PromptTicket, RestoreTicket, TensorBytes


class Course:
    """Prompts and saved latents of a video, by block."""

    def __init__(self, video: str, rollout: RolloutConfig, prompts: dict[int, TensorBytes]) -> None:
        """``prompts``: embeddings by the block from which they hold; block 0 has one."""
        assert 0 in prompts, "a video begins with a prompt"
        self._video, self._rollout = video, rollout
        self._prompts = dict(prompts)
        self._saved: dict[int, dict[int, TensorBytes]] = {}
        self._writers = {stage for stage in range(rollout.num_stages) if writes_pages(rollout, stage)}

    def set_prompt(self, block: int, embedding: TensorBytes) -> None:
        """Follow a prompt from ``block`` on, until the next one."""
        self._prompts[block] = embedding

    def prompt_at(self, block: int) -> TensorBytes:
        """The prompt that ``block`` follows."""
        return self._prompts[max(at for at in self._prompts if at <= block)]

    def prompt_change(self, block: int) -> PromptTicket | None:
        """The ticket to send before ``block``, if another prompt begins there."""
        if block == 0 or block not in self._prompts:
            return None
        return PromptTicket(video=self._video, embedding=self._prompts[block])

    def save(self, message: LatentsSaved) -> None:
        """Keep what a cache pass read, as long as a restored video would need it."""
        self._saved.setdefault(message.block, {})[message.stage] = message.latents

    def forget_before(self, block: int) -> None:
        """``block`` is the next one its reader gets: drop what neither way back can need."""
        needed = set(attended_blocks(self._rollout, block))
        self._saved = {at: latents for at, latents in self._saved.items() if at in needed or at >= block}

    def forget_prompts_before(self, block: int) -> None:
        """The video is too old for an exact way back: keep the prompts that restoring ``block`` needs."""
        oldest = min(attended_blocks(self._rollout, block), default=0)
        holding = max(at for at in self._prompts if at <= oldest)
        self._prompts = {at: prompt for at, prompt in self._prompts.items() if at >= holding}

    def can_make_again(self) -> bool:
        """Whether no prompt is forgotten."""
        return 0 in self._prompts

    def can_restore(self, block: int) -> bool:
        """Whether all latents that a video needs to go on at ``block`` are saved."""
        needed = attended_blocks(self._rollout, block)
        return all(self._saved.get(at, {}).keys() >= self._writers for at in needed)

    def opening_prompt(self, block: int) -> TensorBytes:
        """The prompt to open a restored video with, before ``restoring_tickets``."""
        return self.prompt_at(min(attended_blocks(self._rollout, block), default=block))

    def restoring_tickets(self, block: int) -> list[RestoreTicket | PromptTicket]:
        """What brings a newly opened video to where ``block`` is the next one."""
        tickets: list[RestoreTicket | PromptTicket] = []
        needed = attended_blocks(self._rollout, block)
        for index, at in enumerate(needed):
            if index > 0 and self.prompt_at(at) is not self.prompt_at(needed[index - 1]):
                tickets.append(PromptTicket(video=self._video, embedding=self.prompt_at(at)))
            latents = tuple(sorted(self._saved[at].items(), key=lambda item: item[0]))
            tickets.append(RestoreTicket(video=self._video, block=at, latents=latents))
        return tickets
