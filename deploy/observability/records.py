"""Recording rules: what several panels and alerts share.

``hiar:video_load`` is what autoscaling follows. Error ratios have no value while no video ends, so that nothing
fires on an idle server.
"""

from deploy.observability.rules import PER_POD, Record

FAILURES = 'reason=~"engine_error|internal_error"'
BURN_WINDOWS = ("5m", "30m", "1h", "6h")

COMPLETION_TARGET = 0.995
"""Part of the videos that must not end with our error (``operations`` spec section 3.4; not set from a GPU yet)."""


def error_ratio(window: str) -> str:
    """Name of the record with the part of the videos that ended with our error."""
    return f"hiar:video_errors:ratio_rate{window}"


def _sum(expr: str) -> str:
    return f"{PER_POD} ({expr})"


def _ratio(window: str) -> Record:
    failed = _sum(f"rate(hiar_videos_finished_total{{{FAILURES}}}[{window}])")
    ended = _sum(f"rate(hiar_videos_finished_total[{window}])")
    return Record(name=error_ratio(window), expr=f"{failed}\n/ ({ended} > 0)")


_REALTIME_BLOCKS = 'rate(hiar_blocks_delivered_total{pace="realtime"}[5m])'

RECORDS = (
    Record(
        name="hiar:video_load",
        expr=f"({_sum('hiar_videos_running')} + {_sum('hiar_videos_waiting')})\n/ ({_sum('hiar_video_slots')} > 0)",
    ),
    Record(name="hiar:video_generated:rate1m", expr=_sum("rate(hiar_video_generated_seconds_total[1m])")),
    Record(
        name="hiar:video_realtime_factor:rate1m",
        expr=f"hiar:video_generated:rate1m\n/ ({_sum('avg_over_time(hiar_videos_running[1m])')} > 0)",
    ),
    Record(
        name="hiar:blocks_late:ratio_rate5m",
        expr=_sum("rate(hiar_blocks_late_total[5m])") + "\n/ " + f"({_sum(_REALTIME_BLOCKS)} > 0)",
    ),
    *map(_ratio, BURN_WINDOWS),
)
