"""What workers say they did, turned into metrics: spans in, observations out.

Knows no video and no request.
"""

from collections import defaultdict
from collections.abc import Iterable

from engine import EngineFacts, LossReason, Phase, Rests, Span, WorkerMemoryFacts
from server.metrics.families import IDLE_CAUSES, PASSES, Families

_PASS_PHASES = (Phase.DENOISE, Phase.CACHE)
TOTAL = "total"
"""The item that is all others, and what cannot be told apart."""


class WorkRecord:
    """The work of the workers of one plan; made for each group that serves. Counters go on where they were."""

    def __init__(self, families: Families, facts: EngineFacts) -> None:
        """Make the children of this plan, and drop the gauges of ranks that are no more."""
        self._stages, self._workers = families.stages, families.workers
        self._into: dict[int, str] = {}
        """By rank, the edge by which latents come."""
        self._out_of: dict[int, str] = {}
        self._forget_gauges()
        for part, device in zip(facts.plan.placements, facts.device_names, strict=True):
            rank = str(part.rank)
            self._workers.info.labels(rank, str(part.chain), device, _names(part.names)).set(1)
            self._make_children(rank)
            busy = [(f"denoise{stage}", kind) for stage in part.stages for kind in PASSES]
            busy += [("decode", "decode")] * part.decodes + [("text", "text")] * part.embeds_text
            for stage, kind in busy:
                self._stages.busy.labels(stage, rank, kind)
            if part.next is not None:
                self._make_edge(part.rank, part.next)
        for memory in facts.memory:
            self._show_memory(memory)

    def _forget_gauges(self) -> None:
        workers = self._workers
        gauges = (workers.up, workers.info, workers.heartbeat, workers.pages, workers.pages_ratio, workers.memory)
        for gauge in gauges:
            gauge.clear()
        workers.tickets_waiting.clear()

    def _show_memory(self, memory: WorkerMemoryFacts) -> None:
        """What was planned beside what was found; not all that is held can be told apart, so a total comes with it."""
        planned = (*memory.planned, (TOTAL, memory.planned_bytes))
        measured = (*memory.measured, (TOTAL, memory.measured_bytes))
        for source, items in (("planned", planned), ("measured", measured)):
            for item, size in items:
                self._workers.memory.labels(str(memory.rank), item.replace(" ", "_"), source).set(size)

    def _make_children(self, rank: str) -> None:
        for cause in IDLE_CAUSES:
            self._workers.idle.labels(rank, cause)
        for reason in LossReason:
            self._workers.losses.labels(rank, reason)

    def _make_edge(self, source: int, target: int) -> None:
        edge = f"{source}-{target}"
        self._out_of[source] = self._into[target] = edge
        for family in (self._workers.sent_bytes, self._workers.transfer, self._workers.receive_wait):
            family.labels(edge)

    def add(self, rank: int, spans: Iterable[Span], rests: Rests) -> None:
        """Take what a worker told."""
        forwards: defaultdict[tuple[float, float], list[Span]] = defaultdict(list)
        for span in spans:
            if span.phase in _PASS_PHASES:
                forwards[span.began_s, span.ended_s].append(span)
            else:
                self._add_step(rank, span)
        for passes in forwards.values():
            self._add_forward(str(rank), passes)
        for cause, rested_s in zip(IDLE_CAUSES, (rests.input_s, rests.output_s, rests.none_s), strict=True):
            self._workers.idle.labels(str(rank), cause).inc(rested_s)

    def _add_forward(self, rank: str, passes: list[Span]) -> None:
        """One forward: each stage in it took part for all of its time, and is charged for its share of the passes."""
        took_s = passes[0].ended_s - passes[0].began_s
        by_stage: defaultdict[str, list[Span]] = defaultdict(list)
        for span in passes:
            by_stage[f"denoise{span.stage}"].append(span)
        for stage, own in by_stage.items():
            kinds = {span.phase for span in own}
            kind = "fused" if len(kinds) > 1 else own[0].phase.value
            self._stages.compute.labels(stage, kind).observe(took_s)
            self._stages.busy.labels(stage, rank, kind).inc(took_s * len(own) / len(passes))
            for span in own:
                if span.phase is Phase.DENOISE:
                    self._stages.last_block.labels(stage).set(span.block)

    def _add_step(self, rank: int, span: Span) -> None:
        took_s = span.ended_s - span.began_s
        match span.phase:
            case Phase.DECODE:
                self._stages.decode.observe(took_s)
                self._stages.busy.labels("decode", str(rank), "decode").inc(took_s)
            case Phase.ENCODE:
                self._stages.encode.observe(took_s)
            case Phase.TEXT:
                self._stages.text.observe(took_s)
                self._stages.busy.labels("text", str(rank), "text").inc(took_s)
            case Phase.SEND:
                self._workers.transfer.labels(self._out_of[rank]).observe(took_s)
                self._workers.sent_bytes.labels(self._out_of[rank]).inc(span.num_bytes)
            case Phase.RECEIVE:
                self._workers.receive_wait.labels(self._into[rank]).observe(took_s)


def _names(names: tuple[str, ...]) -> str:
    """Stages as label values call them: brackets would need quoting in a query."""
    return " ".join(name.replace("[", "").replace("]", "") for name in names)
