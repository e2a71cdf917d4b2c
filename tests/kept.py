"""A store of one video in this process's memory, for tests: what it was told opens the video again."""

from dataclasses import dataclass, field

from engine import EndReason, Fragment, HiarError, InitSegment, PastVideo, Recovery, StorageFailed, VideoRequest


@dataclass
class MemoryKept:
    """What a video told, in order. ``KeptVideo`` for the engine."""

    id: str
    is_slow: bool = False
    """Nothing counts as stored until a test says so."""
    init_segment: InitSegment | None = None
    fragments: list[Fragment] = field(default_factory=list)
    prompts: list[tuple[int, str]] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    is_paused: bool = False
    outcome: EndReason | HiarError | None = None
    num_stored: int = 0

    def begun(self, init_segment: InitSegment) -> None:
        assert self.init_segment is None, "it began twice"
        self.init_segment = init_segment

    def prompted(self, block: int, text: str) -> None:
        assert self.outcome is None
        self.prompts.append((block, text))

    def added(self, fragment: Fragment) -> None:
        assert self.outcome is None and fragment.block == len(self.fragments), "a block came twice, or too late"
        assert self.init_segment is not None and self.prompts, "a block came before what it needs"
        self.fragments.append(fragment)
        if not self.is_slow:
            self.num_stored = len(self.fragments)

    def recovered(self, recovery: Recovery) -> None:
        self.recoveries.append(recovery)

    def paused(self, is_paused: bool) -> None:
        assert self.outcome is None
        self.is_paused = is_paused

    def ended(self, outcome: EndReason | HiarError) -> None:
        assert self.outcome is None or isinstance(outcome, StorageFailed), "it ended twice"
        self.outcome = outcome

    def past(self, request: VideoRequest, model: str, *, created_at: float, num_blocks: int | None = None) -> PastVideo:
        """What a new process finds when this one dies; ``num_blocks``: of the first blocks alone."""
        return PastVideo(
            id=self.id,
            request=request,
            model=model,
            created_at=created_at,
            init_segment=self.init_segment,
            fragments=tuple(self.fragments[:num_blocks]),
            prompts=tuple(self.prompts),
            recoveries=tuple(self.recoveries),
            is_paused=self.is_paused,
        )

    def reopened(self, past: PastVideo) -> "MemoryKept":
        """The store of it in the new process."""
        return MemoryKept(
            id=self.id,
            init_segment=past.init_segment,
            fragments=list(past.fragments),
            prompts=list(past.prompts),
            recoveries=list(past.recoveries),
            is_paused=past.is_paused,
            num_stored=len(past.fragments),
        )
