"""Alerts on what viewers feel: slow, late and failed videos."""

from deploy.observability.records import COMPLETION_TARGET, FAILURES, error_ratio
from deploy.observability.rules import PER_POD, WHERE, Alert, Condition, Severity


def _burns(speed: float, *windows: str) -> tuple[Condition, ...]:
    """The error budget of 28 days is used up ``speed`` times too fast, and videos really failed."""
    limit = f"> {speed:g} * {1 - COMPLETION_TARGET:g}"
    ratios = tuple(Condition(looks_at=error_ratio(window), bad=limit) for window in windows)
    failed = f"{PER_POD} (increase(hiar_videos_finished_total{{{FAILURES}}}[{windows[0]}]))"
    return (*ratios, Condition(looks_at=failed, bad="> 2"))


VIEWER_ALERTS = (
    Alert(
        name="BelowRealtime",
        severity=Severity.PAGE,
        conditions=(
            Condition(looks_at="hiar:video_realtime_factor:rate1m", bad="< 0.95"),
            Condition(looks_at=f"{PER_POD} (rate(hiar_stream_stalled_seconds_total[1m]))", bad="> 0"),
        ),
        lasting="3m",
        summary="Videos are made slower than they play",
        description=f"{WHERE} makes {{{{ $value | humanizePercentage }}}} of what its viewers play; their picture "
        "stands still again and again.",
        runbook=(
            "More servers do not mend videos that run already. See on the Pipeline dashboard which stage is busy all "
            "the time, and whether its passes got slower.",
            "Slower passes on one device: GpuThrottled, or another program on the same GPU.",
            "No stage busy: a worker waits for its input (slow link between devices) or its output (encoder without "
            "enough CPU).",
            "All busy at their usual speed: too many videos at once for this machine; lower `--max-videos`.",
        ),
    ),
    Alert(
        name="SlowFirstSegment",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at="histogram_quantile(0.95, sum by (namespace, pod, le) "
                "(rate(hiar_time_to_first_segment_seconds_bucket[10m])))",
                bad="> 10",
            ),
        ),
        lasting="10m",
        summary="Videos start late",
        description=f"Of the videos that {WHERE} starts, 5 % show nothing for {{{{ $value | humanizeDuration }}}}.",
        runbook=(
            "Compare with the time in the queue on the Viewers dashboard: if that is most of it, add servers.",
            "If not, a block takes too long through the chain: stage times by pass on the Pipeline dashboard.",
        ),
    ),
    Alert(
        name="VideoErrorBudgetFast",
        severity=Severity.PAGE,
        conditions=_burns(14.4, "1h", "5m"),
        lasting="",
        summary="Videos fail at a high rate",
        description=f"{{{{ $value | humanizePercentage }}}} of the videos that ended at {WHERE} within an hour failed "
        "by our fault; a month's error budget is gone in two days.",
        runbook=(
            '`hiar_errors_total{component="video"}` says how: `worker_lost`, `engine_oom`, `corrupt_latents`, '
            "`encoder_failed` or `engine_error`.",
            "`worker_lost`: EngineRestartLoop. `engine_oom`: lower `--max-videos`, or free the GPU of other programs.",
            "`corrupt_latents` on one device only: suspect its memory. On all: the weights, or a change of build.",
            "After a rollout, roll back first and look afterwards.",
        ),
    ),
    Alert(
        name="VideoErrorBudgetSlow",
        severity=Severity.TICKET,
        conditions=_burns(6, "6h", "30m"),
        lasting="",
        summary="Videos fail more often than planned",
        description=f"{{{{ $value | humanizePercentage }}}} of the videos that ended at {WHERE} within six hours "
        "failed by our fault.",
        runbook=(
            "As VideoErrorBudgetFast, without the hurry: find the code in `hiar_errors_total`, then the sentences in "
            "the log.",
        ),
    ),
    Alert(
        name="InternalErrors",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at=f'{PER_POD} (increase(hiar_errors_total{{component="http",kind="internal_error"}}[15m]))',
                bad="> 0",
            ),
        ),
        lasting="",
        summary="A request met a bug",
        description=f"{WHERE} answered {{{{ $value | humanize }}}} requests with 500 in 15 minutes.",
        runbook=("The log has a traceback for each. Report it with the request; no input should lead there.",),
    ),
    Alert(
        name="SlowClients",
        severity=Severity.INFO,
        conditions=(
            Condition(
                looks_at=f'{PER_POD} (rate(hiar_videos_finished_total{{reason="slow_client"}}[15m])) '
                f"/ ({PER_POD} (rate(hiar_videos_finished_total[15m])) > 0)",
                bad="> 0.1",
            ),
        ),
        lasting="15m",
        summary="Many viewers are cut off because they do not read",
        description=f"{{{{ $value | humanizePercentage }}}} of the videos at {WHERE} end because their reader took "
        "nothing for too long.",
        runbook=(
            "Often a proxy in between that buffers, or a client that stops reading when its player pauses.",
            "All viewers of one network: their link is slower than the video; offer a smaller size or less quality.",
        ),
    ),
)
