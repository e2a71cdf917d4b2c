"""The dashboard of the chain: which stage is busy or waits, what passes take, what goes from worker to worker."""

from deploy.observability.boards import NAMESPACE, POD, Board, Variable
from deploy.observability.panels import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Kind,
    Panel,
    Query,
    Row,
    Step,
    one,
)
from deploy.observability.promql import grown, mean, quantile, rate, series

STAGE = Variable(name="stage", metric="stage_busy_seconds_total", matchers='{pod=~"$pod"}')
_STAGE = 'stage=~"$stage"'

WORKER_STATES = {
    4: ("computing", GREEN),
    3: ("waiting for latents", BLUE),
    2: ("encoder is full", ORANGE),
    1: ("no work", GREY),
}
"""What a worker spends most of its time with; the number stands for it in a panel."""

_BUSY_STEPS = (
    Step(at=None, colour=DARK),
    Step(at=0.05, colour=BLUE),
    Step(at=0.35, colour=GREEN),
    Step(at=0.75, colour=ORANGE),
    Step(at=0.95, colour=RED),
)


def _mostly() -> str:
    """For each worker the state of ``WORKER_STATES`` that takes most of its time."""
    shares = {4: rate("stage_busy_seconds_total", by="pod, rank")} | {
        code: rate("worker_idle_seconds_total", f'cause="{cause}"', by="pod, rank")
        for code, cause in ((3, "input"), (2, "output"), (1, "none"))
    }
    terms = []
    for code, share in shares.items():
        beaten = [f"{share} >= {other}" for lower, other in shares.items() if lower < code]
        terms.append(f"({' and '.join(beaten) or share}) * 0 + {code}")
    return " or ".join(terms)


_DIAGONAL = Row(
    title="The diagonal",
    panels=(
        Panel(
            title="Stages, busy or waiting",
            description="How much of the time each stage computes. With one video and a pipeline in balance all are "
            "green or orange together; one red stage with the others lighter is the bottleneck; dark stages wait. A "
            "scrape is longer than a block, so single blocks are not seen: python -m benchmarks.pipeline draws them.",
            kind=Kind.STATES,
            queries=one(rate("stage_busy_seconds_total", _STAGE, by="pod, stage"), "{{pod}} {{stage}}"),
            unit="percentunit",
            low=0,
            high=1,
            steps=_BUSY_STEPS,
            width=12,
            height=9,
            alert="BelowRealtime",
        ),
        Panel(
            title="Workers, what they wait for",
            description="What each worker spends most of its time with. Waiting for latents: the worker before it is "
            "slower, or the pipeline fills. Encoder is full: the CPU that encodes is slower.",
            kind=Kind.STATES,
            queries=one(_mostly(), "{{pod}} rank {{rank}}"),
            states=WORKER_STATES,
            width=12,
            height=9,
        ),
        Panel(
            title="Block each stage denoised last",
            description="Lines of one video run in parallel, a block apart: the diagonal. With several videos the "
            "lines jump between their blocks.",
            queries=one(
                f"max by (pod, stage) ({series('stage_last_block', _STAGE)})",
                "{{pod}} {{stage}}",
            ),
            width=12,
        ),
        Panel(
            title="Who runs what",
            description="Workers, their chain, device and stages, as placed at the start.",
            kind=Kind.NUMBER,
            queries=one(
                f"count by (pod, rank, chain, device, stages) ({series('worker_info')})",
                "{{pod}} rank {{rank}}, chain {{chain}}, {{device}}: {{stages}}",
            ),
            named=True,
            width=12,
        ),
    ),
)

_STAGES = Row(
    title="Stages",
    panels=(
        Panel(
            title="Computing, by stage",
            description="Workers' seconds a second. A worker that never rests adds 1.",
            queries=one(rate("stage_busy_seconds_total", _STAGE, by="stage"), "{{stage}}"),
            low=0,
            stacked=True,
        ),
        Panel(
            title="Computing, by kind of pass",
            description="Workers' seconds a second. Fused forwards hold cache and denoise passes together: the more "
            "of them, the better the machine is used.",
            queries=one(rate("stage_busy_seconds_total", _STAGE, by="pass"), "{{pass}}"),
            low=0,
            stacked=True,
        ),
        Panel(
            title="Bubble by cause",
            description="Workers' seconds a second without computing. input: latents of a known block were still to "
            "come. output: the encoder was full. none: there was no work.",
            queries=one(rate("worker_idle_seconds_total", by="cause"), "{{cause}}"),
            low=0,
            stacked=True,
        ),
        Panel(
            title="Forward, by stage and kind of pass, mean",
            description="Time of a forward in which the stage had a part.",
            queries=one(
                mean("stage_compute_duration_seconds", _STAGE, by="stage, pass"),
                "{{stage}} {{pass}}",
            ),
            unit="s",
            low=0,
            width=12,
        ),
        Panel(
            title="Forward, by kind of pass, p95",
            description="95 of 100 forwards of this kind took less.",
            queries=one(quantile(0.95, "stage_compute_duration_seconds", _STAGE, by="pass"), "{{pass}}"),
            unit="s",
            low=0,
            width=12,
        ),
    ),
)

_EDGES = Row(
    title="Between workers",
    panels=(
        Panel(
            title="Tickets that wait",
            description="Queue of each worker: tickets that are its to pass.",
            queries=one(f"max by (pod, rank) ({series('worker_tickets_waiting')})", "{{pod}} rank {{rank}}"),
            low=0,
        ),
        Panel(
            title="Latents sent",
            description="Bytes a second, by sender and receiver.",
            queries=one(rate("stage_transfer_bytes_total", by="edge"), "{{edge}}"),
            unit="Bps",
            low=0,
        ),
        Panel(
            title="Hand-over of a block",
            description="Sending, and waiting for it at the other end, the work before it included; mean.",
            queries=(
                Query(expr=mean("stage_transfer_duration_seconds", by="edge"), legend="send {{edge}}"),
                Query(expr=mean("stage_receive_wait_duration_seconds", by="edge"), legend="wait {{edge}}"),
            ),
            unit="s",
            low=0,
        ),
    ),
)

_MEDIA = Row(
    title="Text, decoding, encoding",
    panels=(
        Panel(
            title="Decode and encode a block",
            description="Time of a block in the decoder and in the encoder, which works beside it.",
            queries=(
                Query(expr=quantile(0.5, "vae_decode_duration_seconds"), legend="decode, p50"),
                Query(expr=quantile(0.95, "vae_decode_duration_seconds"), legend="decode, p95"),
                Query(expr=quantile(0.5, "encode_duration_seconds"), legend="encode, p50"),
                Query(expr=quantile(0.95, "encode_duration_seconds"), legend="encode, p95"),
            ),
            unit="s",
            low=0,
        ),
        Panel(
            title="Embed a prompt",
            description="Time of the text encoder; a prompt that is remembered takes none.",
            queries=(
                Query(expr=quantile(0.5, "text_encode_duration_seconds"), legend="p50"),
                Query(expr=quantile(0.95, "text_encode_duration_seconds"), legend="p95"),
            ),
            unit="s",
            low=0,
        ),
        Panel(
            title="Prompts",
            description="Per second: whose embedding was remembered, and which had to be embedded.",
            queries=(
                Query(expr=rate("text_cache_hits_total"), legend="remembered"),
                Query(expr=rate("text_cache_misses_total"), legend="embedded"),
            ),
            unit="ops",
            low=0,
        ),
    ),
)

_WORKERS = Row(
    title="Workers and pages",
    panels=(
        Panel(
            title="Pages taken",
            description="Part of each worker's pages that is in use. A video takes a window of them and gives them "
            "back at its end.",
            queries=one(f"max by (pod, rank) ({series('kv_cache_usage_ratio')})", "{{pod}} rank {{rank}}"),
            unit="percentunit",
            low=0,
            high=1,
        ),
        Panel(
            title="Pages",
            description="Pages of each worker's pool.",
            queries=one(f"max by (pod, rank) ({series('kv_cache_pages')})", "{{pod}} rank {{rank}}"),
            low=0,
        ),
        Panel(
            title="Memory of the workers",
            description="Planned from sizes, with blocks in the making, and measured before the first block. What is "
            "planned is an estimate.",
            queries=one(
                "max by (pod, rank, source) (" + series("worker_memory_bytes", 'item="total"') + ")",
                "{{pod}} rank {{rank}} {{source}}",
            ),
            unit="bytes",
            low=0,
        ),
        Panel(
            title="Losses",
            description="Workers lost, by rank and reason.",
            queries=one(grown("worker_losses_total", by="rank, reason"), "rank {{rank}} {{reason}}"),
            low=0,
            alert="EngineRestartLoop",
        ),
    ),
)

PIPELINE = Board(
    uid="hiar-pipeline",
    title="HiAR / Pipeline",
    description="The chain: which stage is busy or waits, and for what.",
    rows=(_DIAGONAL, _STAGES, _EDGES, _MEDIA, _WORKERS),
    variables=(NAMESPACE, POD, STAGE),
)
