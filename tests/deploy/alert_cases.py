"""What servers look like to Prometheus, healthy and not: series for ``promtool test rules``, a sample every 30 s.

``_`` is no sample; ``a+bxn`` is a and n more samples, each b above the one before.
"""

from dataclasses import dataclass

STEP_S = 30
HOUR = 3600 // STEP_S
SERVER = 'namespace="video",pod="hiar-0"'
LABELS = {"namespace": "video", "pod": "hiar-0"}

Series = dict[str, str]

_STATES = ("starting", "ready", "draining", "restarting", "failed", "stopped")
_REASONS = ("completed", "drain", "slow_client", "engine_error", "internal_error")
_LONG = 2 * HOUR


def name(metric: str, labels: str = "") -> str:
    return f"{metric}{{{','.join(filter(None, (SERVER, labels)))}}}"


def constant(value: float) -> str:
    return f"{value:g}x{_LONG}"


def growing(a_minute: float) -> str:
    return f"0+{a_minute * STEP_S / 60:g}x{_LONG}"


def still_then_growing(still: int, a_minute: float) -> str:
    """``still`` samples of 0 first."""
    return f"0x{still - 1} 0+{a_minute * STEP_S / 60:g}x{_LONG}"


def histogram(metric: str, a_minute: dict[str, float]) -> Series:
    """Cumulative counts by upper edge."""
    return {name(f"{metric}_bucket", f'le="{edge}"'): growing(rate) for edge, rate in a_minute.items()}


def state(now: str) -> Series:
    return {name("hiar_engine_state", f'state="{each}"'): constant(each == now) for each in _STATES}


def ended(**a_minute: float) -> Series:
    reasons = dict.fromkeys(_REASONS, 0.0) | a_minute
    return {name("hiar_videos_finished_total", f'reason="{each}"'): growing(rate) for each, rate in reasons.items()}


IDLE: Series = {
    name("up"): constant(1),
    name("hiar_build_info", 'version="1"'): constant(1),
    name("hiar_videos_running"): constant(0),
    name("hiar_videos_waiting"): constant(0),
    name("hiar_video_slots"): constant(2),
    name("hiar_video_queue_capacity"): constant(8),
    name("hiar_video_generated_seconds_total"): constant(0),
    name("hiar_stream_stalled_seconds_total"): constant(0),
    name("hiar_blocks_late_total"): constant(0),
    name("hiar_blocks_delivered_total", 'pace="realtime"'): constant(0),
    name("hiar_requests_rejected_total", 'reason="queue_full"'): constant(0),
    name("hiar_requests_rejected_total", 'reason="draining"'): constant(0),
    name("hiar_requests_rejected_total", 'reason="validation"'): constant(0),
    name("hiar_engine_restarts_total", 'reason="died"'): constant(0),
    name("hiar_engine_restarts_total", 'reason="hung"'): constant(0),
    name("hiar_errors_total", 'component="http",kind="internal_error"'): constant(0),
    name("hiar_errors_total", 'component="http",kind="invalid_request"'): constant(0),
    name("hiar_worker_last_heartbeat_timestamp_seconds", 'rank="1"'): constant(0),
    name("hiar_worker_tickets_waiting", 'rank="1"'): constant(0),
    name("hiar_gpu_xid_errors_total", 'gpu="0"'): constant(0),
    name("hiar_gpu_ecc_errors_total", 'gpu="0",kind="corrected"'): growing(1),
    name("hiar_gpu_ecc_errors_total", 'gpu="0",kind="uncorrected"'): constant(3),
    name("hiar_gpu_throttled", 'gpu="0",reason="power_cap"'): constant(1),
    name("hiar_gpu_throttled", 'gpu="0",reason="hw_thermal"'): constant(0),
    name("hiar_gpu_memory_used_bytes", 'gpu="0"'): constant(60e9),
    name("hiar_gpu_memory_total_bytes", 'gpu="0"'): constant(80e9),
    **state("ready"),
    **ended(),
    **histogram("hiar_time_to_first_segment_seconds", {"5.0": 0, "20.0": 0, "+Inf": 0}),
    **histogram("hiar_event_loop_lag_seconds", {"0.01": 600, "0.5": 600, "+Inf": 600}),
}
"""A GPU at its power cap and with old memory errors is no trouble either."""

BUSY: Series = {
    **IDLE,
    name("hiar_videos_running"): constant(2),
    name("hiar_videos_waiting"): constant(1),
    name("hiar_video_generated_seconds_total"): growing(2 * 60),
    name("hiar_blocks_late_total"): growing(1),
    name("hiar_stream_stalled_seconds_total"): growing(0.2),
    name("hiar_blocks_delivered_total", 'pace="realtime"'): growing(160),
    name("hiar_requests_rejected_total", 'reason="validation"'): growing(5),
    name("hiar_errors_total", 'component="http",kind="invalid_request"'): growing(5),
    name("hiar_worker_last_heartbeat_timestamp_seconds", 'rank="1"'): f"0+{STEP_S}x{_LONG}",
    name("hiar_worker_tickets_waiting", 'rank="1"'): constant(2),
    **ended(completed=10, slow_client=0.5, engine_error=0.02),
    **histogram("hiar_time_to_first_segment_seconds", {"5.0": 98, "20.0": 100, "+Inf": 100}),
}
"""Realtime; a block late now and then; a failure in five hundred videos."""

_BEFORE, _DRAINING, _GONE, _STARTING = 20, 10, 4, 8


def _drained(before: str, draining: str, after: str) -> str:
    return f"{before}x{_BEFORE - 1} {draining}x{_DRAINING - 1} stale _x{_GONE} {after}"


DRAINING: Series = {
    **{key: _drained("0", "0", "0x120") for key in BUSY if "_total" in key or "_bucket" in key},
    **{key: _drained("1", "1", "1x120") for key in BUSY if key.startswith(("up", "hiar_build_info"))},
    **{key: _drained("0", "0", "0x120") for key in state("ready")},
    name("hiar_engine_state", 'state="ready"'): _drained("1", "0", f"0x{_STARTING} 1x120"),
    name("hiar_engine_state", 'state="draining"'): _drained("0", "1", "0x120"),
    name("hiar_engine_state", 'state="starting"'): _drained("0", "0", f"1x{_STARTING} 0x120"),
    name("hiar_videos_running"): _drained("2", "1", "0x120"),
    name("hiar_videos_waiting"): _drained("4", "0", "0x120"),
    name("hiar_video_slots"): _drained("2", "2", "2x120"),
    name("hiar_video_queue_capacity"): _drained("8", "8", "8x120"),
    name("hiar_videos_finished_total", 'reason="drain"'): _drained("0", "0+4", "0x120"),
    name("hiar_requests_rejected_total", 'reason="draining"'): _drained("0", "0+50", "0x120"),
    name("hiar_video_generated_seconds_total"): _drained("0+60", f"{60 * _BEFORE}+30", "0x120"),
    name("hiar_worker_last_heartbeat_timestamp_seconds", 'rank="1"'): f"0+30x{_BEFORE - 1} stale",
    name("hiar_worker_tickets_waiting", 'rank="1"'): f"2x{_BEFORE - 1} stale",
}
"""A rolling update of one server with a queue: it ends its videos, is gone, starts and serves again."""

READ_SLOWLY: Series = {
    **BUSY,
    name("hiar_video_generated_seconds_total"): growing(90),
    name("hiar_stream_stalled_seconds_total"): constant(0),
}
"""Its viewers take less than real time, and none of them waits."""

QUIET = {"idle": IDLE, "busy": BUSY, "draining": DRAINING, "read slowly": READ_SLOWLY}
"""Nothing fires in any of these, ever."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """``series`` replace those of a busy server; the alert fires at ``at`` and did not yet at ``not_yet``."""

    series: Series
    at: str
    description: str
    not_yet: str | None = None
    labels: tuple[tuple[str, str], ...] = tuple(LABELS.items())
    without_server: bool = False


GPU = (*LABELS.items(), ("gpu", "0"))

FIRING = {
    "EngineDown": Case(
        series=state("failed"),
        not_yet="30s",
        at="2m",
        description="video/hiar-0 is neither serving nor on its way to it; every request is refused.",
    ),
    "EngineStartingTooLong": Case(
        series=state("restarting"),
        not_yet="19m",
        at="21m",
        description="video/hiar-0 serves nobody: its workers are still starting, or are being replaced again and "
        "again.",
    ),
    "EngineRestartLoop": Case(
        series={name("hiar_engine_restarts_total", 'reason="died"'): still_then_growing(20, 0.2)},
        not_yet="20m",
        at="40m",
        description="video/hiar-0 has replaced its workers 6 times in 30 minutes; at each, every video of it pauses.",
    ),
    "WorkerHeartbeatStale": Case(
        series={name("hiar_worker_last_heartbeat_timestamp_seconds", 'rank="1"'): f"0+30x19 600x{_LONG}"},
        not_yet="10m",
        at="12m",
        labels=(*LABELS.items(), ("rank", "1")),
        description="Worker 1 of video/hiar-0 was last heard of 120 s ago and was not replaced.",
    ),
    "ServerUnreachable": Case(
        series={name("up"): f"1x19 0x{_LONG}", name("hiar_build_info", 'version="1"'): "1x19 _x200"},
        not_yet="11m",
        at="13m",
        description="video/hiar-0 is there and cannot be scraped; it answered within the last hour.",
    ),
    "MetricsAbsent": Case(
        series={"up": constant(1)},
        without_server=True,
        not_yet="4m",
        at="6m",
        labels=(),
        description="Prometheus has no series of any HiAR server: none runs, or none is scraped.",
    ),
    "BelowRealtime": Case(
        series={
            name("hiar_video_generated_seconds_total"): growing(90),
            name("hiar_stream_stalled_seconds_total"): growing(30),
        },
        not_yet="3m",
        at="5m",
        description="video/hiar-0 makes 75% of what its viewers play; their picture stands still again and again.",
    ),
    "SlowFirstSegment": Case(
        series=histogram("hiar_time_to_first_segment_seconds", {"5.0": 80, "20.0": 100, "+Inf": 100}),
        not_yet="9m",
        at="15m",
        description="Of the videos that video/hiar-0 starts, 5 % show nothing for 16.25s.",
    ),
    "VideoErrorBudgetFast": Case(
        series=ended(completed=9, engine_error=0.5, internal_error=0.5),
        at="1h",
        description="10% of the videos that ended at video/hiar-0 within an hour failed by our fault; a month's error "
        "budget is gone in two days.",
    ),
    "VideoErrorBudgetSlow": Case(
        series=ended(completed=24, engine_error=1),
        at="1h",
        description="4% of the videos that ended at video/hiar-0 within six hours failed by our fault.",
    ),
    "InternalErrors": Case(
        series={name("hiar_errors_total", 'component="http",kind="internal_error"'): still_then_growing(60, 2)},
        not_yet="29m",
        at="50m",
        description="video/hiar-0 answered 30 requests with 500 in 15 minutes.",
    ),
    "SlowClients": Case(
        series=ended(completed=8, slow_client=2),
        not_yet="14m",
        at="20m",
        description="20% of the videos at video/hiar-0 end because their reader took nothing for too long.",
    ),
    "QueueSaturated": Case(
        series={name("hiar_videos_waiting"): constant(7)},
        not_yet="4m",
        at="6m",
        description="At video/hiar-0, 87.5% of the queue is taken; soon requests are refused.",
    ),
    "Rejecting": Case(
        series={name("hiar_requests_rejected_total", 'reason="queue_full"'): growing(6)},
        not_yet="9m",
        at="12m",
        description="video/hiar-0 has been refusing requests for ten minutes.",
    ),
    "EventLoopLag": Case(
        series=histogram("hiar_event_loop_lag_seconds", {"0.01": 0, "0.5": 600, "+Inf": 600}),
        not_yet="4m",
        at="7m",
        description="Timers of video/hiar-0 fire 495.1ms late; every viewer gets blocks late.",
    ),
    "GpuXid": Case(
        series={name("hiar_gpu_xid_errors_total", 'gpu="0"'): f"0x20 1x{_LONG}"},
        not_yet="9m",
        at="12m",
        labels=GPU,
        description="GPU 0 of video/hiar-0 had an XID error.",
    ),
    "GpuEccUncorrectable": Case(
        series={name("hiar_gpu_ecc_errors_total", 'gpu="0",kind="uncorrected"'): f"3x20 4x{_LONG}"},
        not_yet="9m",
        at="12m",
        labels=GPU,
        description="GPU 0 of video/hiar-0 had an uncorrectable memory error.",
    ),
    "GpuThrottled": Case(
        series={name("hiar_gpu_throttled", 'gpu="0",reason="hw_thermal"'): constant(1)},
        not_yet="9m",
        at="11m",
        labels=(*GPU, ("reason", "hw_thermal")),
        description="The clock of GPU 0 of video/hiar-0 has been held down for ten minutes: hw_thermal.",
    ),
    "GpuMemoryHigh": Case(
        series={name("hiar_gpu_memory_used_bytes", 'gpu="0"'): constant(79.2e9)},
        not_yet="9m",
        at="11m",
        labels=GPU,
        description="GPU 0 of video/hiar-0 has 99% of its memory in use.",
    ),
}
