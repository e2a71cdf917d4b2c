"""The dashboard of the service: who watches, what they feel, how videos end, and what HTTP answers."""

from deploy.observability.alerts import ALERTS
from deploy.observability.boards import COLUMNS, Board
from deploy.observability.engine_state import ENGINE_STATES, engine_state
from deploy.observability.panels import (
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Kind,
    Panel,
    Query,
    Row,
    Step,
    one,
)
from deploy.observability.promql import buckets, mean, quantile, rate, series, total


def _alerts() -> str:
    """One number for each of our alerts that is not silent; some have no namespace and pod."""
    names = "|".join(alert.name for alert in ALERTS)
    ours = f'namespace=~"$namespace|",pod=~"$pod|",alertname=~"{names}"'
    pending, firing = (f'ALERTS{{{ours},alertstate="{state}"}}' for state in ("pending", "firing"))
    return f"max by (alertname) ({pending} or {firing} * 2)"


def _quantiles(name: str, *parts: float) -> tuple[Query, ...]:
    return tuple(Query(expr=quantile(part, name), legend=f"p{part * 100:g}") for part in parts)


_HEALTH = Row(
    title="Health",
    panels=(
        Panel(
            title="Engine",
            description="State of each server's engine. Restarting: lost workers are being replaced, and running "
            "videos wait. Failed: it has given up.",
            kind=Kind.STATES,
            queries=one(engine_state(), "{{pod}}"),
            states=ENGINE_STATES,
            width=12,
            height=5,
            alert="EngineDown",
        ),
        Panel(
            title="Ready",
            description="Servers that take requests now.",
            kind=Kind.NUMBER,
            queries=one(total("engine_state", 'state="ready"')),
            steps=(Step(at=None, colour=RED), Step(at=1, colour=GREEN)),
            width=3,
            height=5,
            alert="ServerUnreachable",
        ),
        Panel(
            title="What runs",
            description="Model, attention, decoder and encoder of the servers that are ready.",
            kind=Kind.NUMBER,
            queries=one(
                f"count by (model, attention, decoder, encoder) ({series('engine_info')})",
                "{{model}}, attention {{attention}}, {{decoder}}, {{encoder}}",
            ),
            named=True,
            width=5,
            height=5,
        ),
        Panel(
            title="Versions",
            description="Of the server, Python and PyTorch. More than one line while a rollout is under way.",
            kind=Kind.NUMBER,
            queries=one(
                f"count by (version, python, torch) ({series('build_info')})",
                "{{version}}, Python {{python}}, torch {{torch}}",
            ),
            named=True,
            width=4,
            height=5,
        ),
        Panel(
            title="Alerts",
            description="Alerts that fire, and those that will if it goes on. Empty while all is well.",
            kind=Kind.STATES,
            queries=one(_alerts(), "{{alertname}}"),
            states={1: ("about to fire", YELLOW), 2: ("fires", RED)},
            width=COLUMNS,
            height=6,
        ),
    ),
)

_DEMAND = Row(
    title="Demand",
    panels=(
        Panel(
            title="Videos",
            description="Being made, waiting in the queue, and how many can be made at the same time.",
            queries=(
                Query(expr=total("videos_running"), legend="running"),
                Query(expr=total("stream_readers"), legend="readers"),
                Query(expr=total("videos_waiting"), legend="waiting"),
                Query(expr=total("video_slots"), legend="slots"),
            ),
            low=0,
            alert="QueueSaturated",
        ),
        Panel(
            title="Requests for a video",
            description="Per second: those that began, by whether they were let in, and those that were refused.",
            queries=(
                Query(expr=rate("video_queue_time_seconds_count"), legend="let in"),
                Query(expr=rate("requests_rejected_total"), legend="refused"),
            ),
            unit="reqps",
            low=0,
        ),
        Panel(
            title="Refusals by reason",
            description="Per second. queue_full is lost demand; draining and not_ready come with restarts; validation "
            "and too_large are the caller's.",
            queries=one(rate("requests_rejected_total", by="reason"), "{{reason}}"),
            unit="reqps",
            low=0,
            stacked=True,
            alert="Rejecting",
        ),
    ),
)

_EXPERIENCE = Row(
    title="Experience",
    panels=(
        Panel(
            title="Time to first segment",
            description="From the request to the first segment sent, the queue included.",
            queries=_quantiles("time_to_first_segment_seconds", 0.5, 0.95, 0.99),
            unit="s",
            low=0,
            steps=(Step(at=None, colour=GREEN), Step(at=5, colour=ORANGE), Step(at=15, colour=RED)),
            alert="SlowFirstSegment",
        ),
        Panel(
            title="Time to first segment, all requests",
            description="How the same times are spread.",
            kind=Kind.HEATMAP,
            queries=one(buckets("time_to_first_segment_seconds")),
            unit="s",
        ),
        Panel(
            title="Time in the queue",
            description="From the request to its place; the rest of the time to the first segment is the chain's.",
            queries=_quantiles("video_queue_time_seconds", 0.5, 0.95),
            unit="s",
            low=0,
        ),
        Panel(
            title="Realtime factor",
            description="Seconds of video made a second for each running video. A realtime video that is far enough "
            "ahead is made at 1; below 1 its viewer will have to wait.",
            queries=one('hiar:video_realtime_factor:rate1m{namespace=~"$namespace",pod=~"$pod"}', "{{pod}}"),
            low=0,
            decimals=2,
            steps=(Step(at=None, colour=RED), Step(at=0.95, colour=GREEN)),
            alert="BelowRealtime",
        ),
        Panel(
            title="Realtime factor of whole videos",
            description="Seconds of video made a second, over each video that ended.",
            queries=_quantiles("video_realtime_factor", 0.05, 0.5, 0.95),
            low=0,
            decimals=2,
        ),
        Panel(
            title="Late blocks",
            description="Part of the blocks of realtime videos that came after the moment their viewer needed them.",
            queries=one('hiar:blocks_late:ratio_rate5m{namespace=~"$namespace",pod=~"$pod"}', "{{pod}}"),
            unit="percentunit",
            low=0,
            steps=(Step(at=None, colour=GREEN), Step(at=0.01, colour=RED)),
            alert="BelowRealtime",
        ),
        Panel(
            title="Lead",
            description="How far ahead of the moment its viewer needs it a block came; below 0 it was late. The "
            "server stops at --lead-target.",
            kind=Kind.HEATMAP,
            queries=one(buckets("stream_lead_seconds")),
            unit="s",
            width=6,
        ),
        Panel(
            title="Time between blocks",
            description="Between two blocks of one video. A block plays 0.75 s at 16 frames a second.",
            queries=_quantiles("block_interval_seconds", 0.5, 0.95, 0.99),
            unit="s",
            low=0,
            width=6,
        ),
        Panel(
            title="Pictures that stood still",
            description="Seconds a second that all viewers of realtime videos together waited for a block, and how "
            "many blocks a second came late.",
            queries=(
                Query(expr=rate("stream_stalled_seconds_total"), legend="standing still"),
                Query(expr=rate("blocks_late_total"), legend="late blocks"),
            ),
            low=0,
            alert="BelowRealtime",
            width=6,
        ),
        Panel(
            title="Prompt change until seen",
            description="From a prompt change to the first block with it, as read.",
            queries=_quantiles("prompt_update_latency_seconds", 0.5, 0.95),
            unit="s",
            low=0,
            width=6,
        ),
    ),
)

_ENDS = Row(
    title="Ends",
    panels=(
        Panel(
            title="Ended videos by reason",
            description="Per second. engine_error and internal_error are ours; slow_client readers took nothing for "
            "too long; drain comes with a restart.",
            queries=one(rate("videos_finished_total", by="reason"), "{{reason}}"),
            unit="ops",
            low=0,
            stacked=True,
            width=12,
            alert="VideoErrorBudgetFast",
        ),
        Panel(
            title="Length",
            description="Of the videos that ended: how long they took, the queue included, and how much video was "
            "delivered.",
            queries=(
                Query(expr=quantile(0.5, "video_lifetime_seconds"), legend="took, p50"),
                Query(expr=quantile(0.95, "video_lifetime_seconds"), legend="took, p95"),
                Query(expr=mean("video_length_seconds"), legend="video, mean"),
                Query(expr=quantile(0.95, "video_length_seconds"), legend="video, p95"),
            ),
            unit="s",
            low=0,
            width=12,
        ),
    ),
)

_DELIVERY = Row(
    title="Delivery",
    panels=(
        Panel(
            title="Video delivered",
            description="Seconds of video sent a second, by protocol; equals the number of viewers while all watch "
            "in real time.",
            queries=(
                Query(expr=rate("video_delivered_seconds_total", by="protocol"), legend="{{protocol}}"),
                Query(expr=rate("video_generated_seconds_total"), legend="made"),
            ),
            low=0,
            width=6,
        ),
        Panel(
            title="Sent",
            description="Bytes of video streams a second.",
            queries=one(rate("stream_sent_bytes_total", by="protocol"), "{{protocol}}"),
            unit="Bps",
            low=0,
            width=6,
        ),
        Panel(
            title="Waiting for slow clients",
            description="Seconds a second that sends waited, and encoded blocks that wait for their reader.",
            queries=(
                Query(expr=rate("stream_send_blocked_seconds_total"), legend="sends waited, s/s"),
                Query(expr=total("stream_buffered_segments"), legend="blocks that wait"),
            ),
            low=0,
            width=6,
            alert="SlowClients",
        ),
        Panel(
            title="Segment size",
            description="Bytes of an encoded block.",
            queries=_quantiles("segment_size_bytes", 0.5, 0.95),
            unit="bytes",
            low=0,
            width=6,
        ),
        Panel(
            title="Blocks",
            description="Blocks that left the chain, and those that readers took by pace, per second.",
            queries=(
                Query(expr=rate("blocks_generated_total"), legend="made"),
                Query(expr=rate("blocks_delivered_total", by="pace"), legend="taken, {{pace}}"),
            ),
            unit="ops",
            low=0,
            width=12,
        ),
        Panel(
            title="Frames",
            description="Frames that left the chain, per second.",
            queries=one(rate("frames_generated_total"), "made"),
            low=0,
            width=12,
        ),
    ),
)

_HTTP = Row(
    title="HTTP",
    panels=(
        Panel(
            title="Answers by code",
            description="Per second, all routes.",
            queries=one(rate("http_requests_total", by="code"), "{{code}}"),
            unit="reqps",
            low=0,
            stacked=True,
        ),
        Panel(
            title="Time to headers",
            description="95 of 100 answers of a route began within this time. Videos are left out: their answer begins "
            "with the first segment, which is shown above.",
            queries=one(
                quantile(0.95, "http_request_duration_seconds", 'route!="/v1/generate"', by="route"), "{{route}}"
            ),
            unit="s",
            low=0,
        ),
        Panel(
            title="In flight",
            description="Requests being answered, by route. A stream is in flight until it ends.",
            queries=one(total("http_requests_in_flight", by="route"), "{{route}}"),
            low=0,
        ),
    ),
)

VIEWERS = Board(
    uid="hiar-viewers",
    title="HiAR / Viewers",
    description="What viewers feel: demand, start, stalls, ends, delivery.",
    rows=(_HEALTH, _DEMAND, _EXPERIENCE, _ENDS, _DELIVERY, _HTTP),
)
