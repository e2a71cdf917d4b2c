"""The dashboard of promises: objectives and their budgets, what was lost and how fast it came back, and the runbooks.

Targets are those of the ``operations`` spec section 3.4; none was set from a measurement on GPUs yet.
"""

from deploy.observability.alerts import ALERTS
from deploy.observability.boards import COLUMNS, RELIABILITY, Board
from deploy.observability.engine_state import ENGINE_STATES, engine_state
from deploy.observability.panels import BLUE, GREEN, ORANGE, RED, Kind, Panel, Query, Row, Step, one
from deploy.observability.promql import grown, quantile, rate, series
from deploy.observability.records import BURN_WINDOWS, COMPLETION_TARGET, FAILURES, error_ratio
from deploy.observability.rules import runbooks_markdown

ADMISSION_TARGET = 0.995
FIRST_SEGMENT_TARGET = 0.95
FIRST_SEGMENT_S = 5
CONTINUITY_TARGET = 0.99
RECOVERY_TARGET = 0.95
RECOVERY_S = 120

_VALID = 'reason!~"validation|too_large|timeout|unauthorized|forbidden|client_limit"'
_NOT_ABLE = 'reason=~"not_ready|draining|queue_timeout"'
"""Refusals that say more than "come back later, others were first" (429)."""


def _bucket(name: str, seconds: int) -> str:
    """What a histogram counted up to ``seconds``, over the dashboard's time."""
    return grown(f"{name}_bucket", f'le=~"{seconds}([.]0)?"', over="$__range")


def _counted(name: str) -> str:
    return grown(f"{name}_count", over="$__range")


def _objective(title: str, promise: str, good_part: str, target: float, alert: str = "") -> Panel:
    """The part that was good, over the dashboard's time; red below the target."""
    return Panel(
        title=title,
        description=f"{promise} Target: {target * 100:g} %. Over the time shown; empty without any.",
        kind=Kind.NUMBER,
        queries=one(good_part),
        unit="percentunit",
        decimals=2,
        steps=(Step(at=None, colour=RED), Step(at=target, colour=GREEN)),
        spark=False,
        width=4,
        height=5,
        alert=alert,
    )


_ADMITTED = _counted("video_queue_time_seconds")
_ASKED = f"({_ADMITTED} + {grown('requests_rejected_total', _VALID, over='$__range')})"
_TURNED_AWAY = grown("requests_rejected_total", _NOT_ABLE, over="$__range")
_FAILED = grown("videos_finished_total", FAILURES, over="$__range")
_ENDED = grown("videos_finished_total", over="$__range")
_LATE = grown("blocks_late_total", over="$__range")
_REALTIME = grown("blocks_delivered_total", 'pace="realtime"', over="$__range")

_OBJECTIVES = Row(
    title="Objectives",
    panels=(
        _objective(
            "Admission",
            "Valid requests that got a place, or were told that the server is full (429).",
            f"1 - {_TURNED_AWAY} / ({_ASKED} > 0)",
            ADMISSION_TARGET,
            "EngineDown",
        ),
        _objective(
            "First segment",
            f"Videos that began within {FIRST_SEGMENT_S} s.",
            f"{_bucket('time_to_first_segment_seconds', FIRST_SEGMENT_S)} / "
            f"({_counted('time_to_first_segment_seconds')} > 0)",
            FIRST_SEGMENT_TARGET,
            "SlowFirstSegment",
        ),
        _objective(
            "Continuity",
            "Blocks of realtime videos that came in time.",
            f"1 - {_LATE} / ({_REALTIME} > 0)",
            CONTINUITY_TARGET,
            "BelowRealtime",
        ),
        _objective(
            "Completion",
            "Videos that did not end by our fault.",
            f"1 - {_FAILED} / ({_ENDED} > 0)",
            COMPLETION_TARGET,
            "VideoErrorBudgetFast",
        ),
        _objective(
            "Recovery",
            f"Lost worker groups replaced within {RECOVERY_S} s.",
            f"{_bucket('engine_recovery_duration_seconds', RECOVERY_S)} / "
            f"({_counted('engine_recovery_duration_seconds')} > 0)",
            RECOVERY_TARGET,
            "EngineRestartLoop",
        ),
        Panel(
            title="Error budget left",
            description="Part of the failures that the completion target allows for the videos that ended in the time "
            "shown, and that did not happen. Below 0 the target is missed.",
            kind=Kind.NUMBER,
            queries=one(f"1 - {_FAILED} / ({_ENDED} > 0) / {1 - COMPLETION_TARGET:g}"),
            unit="percentunit",
            decimals=1,
            steps=(Step(at=None, colour=RED), Step(at=0, colour=ORANGE), Step(at=0.5, colour=GREEN)),
            spark=False,
            width=4,
            height=5,
            alert="VideoErrorBudgetSlow",
        ),
        Panel(
            title="Burn rate of the error budget",
            description="How many times faster than the target allows videos fail, over several spans. 14.4 in an "
            "hour pages, 6 in six hours is a ticket. No line while no video ends.",
            queries=tuple(
                Query(
                    expr=f'max({error_ratio(window)}{{namespace=~"$namespace",pod=~"$pod"}}) '
                    f"/ {1 - COMPLETION_TARGET:g}",
                    legend=f"over {window}",
                )
                for window in BURN_WINDOWS
            ),
            low=0,
            steps=(Step(at=None, colour=GREEN), Step(at=6, colour=ORANGE), Step(at=14.4, colour=RED)),
            width=12,
            alert="VideoErrorBudgetFast",
        ),
        Panel(
            title="Videos that failed, and how others ended",
            description="Videos per step, by reason.",
            queries=one(grown("videos_finished_total", by="reason"), "{{reason}}"),
            low=0,
            stacked=True,
            width=12,
        ),
    ),
)

_LOSSES = Row(
    title="Losses and recovery",
    panels=(
        Panel(
            title="Engine",
            description="State of each server's engine.",
            kind=Kind.STATES,
            queries=one(engine_state(), "{{pod}}"),
            states=ENGINE_STATES,
            width=12,
            height=6,
            alert="EngineDown",
        ),
        Panel(
            title="Workers up",
            description="Whether each worker's group serves.",
            kind=Kind.STATES,
            queries=one(f"max by (pod, rank) ({series('worker_up')})", "{{pod}} rank {{rank}}"),
            states={1: ("up", GREEN), 0: ("down", RED)},
            width=12,
            height=6,
        ),
        Panel(
            title="Restarts",
            description="Worker groups lost and replaced, by what happened to the worker at fault.",
            queries=one(grown("engine_restarts_total", by="reason"), "{{reason}}"),
            low=0,
            width=6,
            alert="EngineRestartLoop",
        ),
        Panel(
            title="Time to recover",
            description="From the loss of a group to the next one that serves. No line without a loss.",
            queries=(
                Query(expr=quantile(0.5, "engine_recovery_duration_seconds"), legend="p50"),
                Query(expr=quantile(0.95, "engine_recovery_duration_seconds"), legend="p95"),
            ),
            unit="s",
            low=0,
            width=6,
        ),
        Panel(
            title="Videos that outlived a loss",
            description="exact: made again from their noise keys. approximate: gone on from saved latents.",
            queries=one(grown("videos_recovered_total", by="way"), "{{way}}"),
            low=0,
            width=6,
        ),
        Panel(
            title="Silence of workers",
            description="Since each worker was last heard of. Only one that owes work (Pipeline: tickets that wait) "
            "should speak.",
            queries=one(
                f"max by (pod, rank) (time() - {series('worker_last_heartbeat_timestamp_seconds')})",
                "{{pod}} rank {{rank}}",
            ),
            unit="s",
            low=0,
            width=6,
            alert="WorkerHeartbeatStale",
        ),
    ),
)

_ERRORS = Row(
    title="Errors",
    panels=(
        Panel(
            title="Videos that failed, by code",
            description="Videos per step.",
            queries=one(grown("errors_total", 'component="video"', by="kind"), "{{kind}}"),
            low=0,
            stacked=True,
        ),
        Panel(
            title="Answers that are no success, by code",
            description="Per second. internal_error is a bug; the others say what the caller or the load did.",
            queries=one(rate("errors_total", 'component="http"', by="kind"), "{{kind}}"),
            unit="reqps",
            low=0,
            stacked=True,
            alert="InternalErrors",
        ),
        Panel(
            title="Losses by worker",
            description="The same rank again and again points to its device.",
            queries=one(grown("worker_losses_total", by="pod, rank, reason"), "{{pod}} rank {{rank}} {{reason}}"),
            low=0,
            steps=(Step(at=None, colour=BLUE),),
            alert="EngineRestartLoop",
        ),
    ),
)


def _runbooks() -> Row:
    panel = Panel(
        title="Runbooks",
        description="What each alert means and what to do.",
        kind=Kind.TEXT,
        text=runbooks_markdown(ALERTS),
        width=COLUMNS,
        height=24,
    )
    return Row(title="Runbooks", panels=(panel,))


RELIABILITY_BOARD = Board(
    uid=RELIABILITY,
    title="HiAR / Reliability",
    description="What is promised and kept, what was lost and how fast it came back, and the runbooks.",
    rows=(_OBJECTIVES, _LOSSES, _ERRORS, _runbooks()),
)
