"""The dashboard of what there is and what is used of it: places for videos, pages, and GPUs by NVML."""

from deploy.observability.boards import NAMESPACE, POD, Board, Variable
from deploy.observability.panels import BLUE, GREEN, GREY, ORANGE, RED, Kind, Panel, Query, Row, Step, one
from deploy.observability.promql import WINDOW, of_process, quantile, rate, series, total

GPU = Variable(name="gpu", metric="gpu_utilization_ratio", matchers='{pod=~"$pod"}')
_GPU = 'gpu=~"$gpu"'
_LEGEND = "{{pod}} GPU {{gpu}}"
_FULL = (Step(at=None, colour=GREEN), Step(at=0.8, colour=ORANGE), Step(at=1, colour=RED))


def _gpu(name: str) -> str:
    """A reading of each GPU."""
    return f"max by (pod, gpu) ({series(name, _GPU)})"


def _gpu_grown(name: str) -> str:
    """What a total of each GPU has grown over the dashboard's time."""
    return f"max by (pod, gpu) (increase({series(name, _GPU)}[$__range]))"


_PLACES = Row(
    title="Places",
    panels=(
        Panel(
            title="Load",
            description="Videos that run or wait, over those that can be made at the same time. Autoscaling follows "
            "this; above 1 there is a queue.",
            queries=one('hiar:video_load{namespace=~"$namespace",pod=~"$pod"}', "{{pod}}"),
            unit="percentunit",
            low=0,
            steps=_FULL,
            alert="QueueSaturated",
        ),
        Panel(
            title="Videos and places",
            description="Being made, by server, and how many can be made at the same time in all.",
            queries=(
                Query(expr=total("videos_running", by="pod"), legend="{{pod}}"),
                Query(expr=total("video_slots"), legend="places in all"),
            ),
            low=0,
        ),
        Panel(
            title="Queue",
            description="Requests that wait, and how many may.",
            queries=(
                Query(expr=total("videos_waiting", by="pod"), legend="{{pod}}"),
                Query(expr=total("video_queue_capacity"), legend="may wait in all"),
            ),
            low=0,
            alert="QueueSaturated",
        ),
        Panel(
            title="Pages taken",
            description="Part of the pages in use, of the fullest worker of each server.",
            queries=one(f"max by (pod) ({series('kv_cache_usage_ratio')})", "{{pod}}"),
            unit="percentunit",
            low=0,
            high=1,
        ),
        Panel(
            title="Video made",
            description="Seconds of video a second, of each server: how many realtime viewers it could serve now.",
            queries=one('hiar:video_generated:rate1m{namespace=~"$namespace",pod=~"$pod"}', "{{pod}}"),
            low=0,
        ),
        Panel(
            title="Busiest worker",
            description="Part of the time that the busiest worker of each server computes. Near 1 the server makes "
            "as much video as it can.",
            queries=one(f"max by (pod) ({rate('stage_busy_seconds_total', by='pod, rank')})", "{{pod}}"),
            unit="percentunit",
            low=0,
            high=1,
        ),
    ),
)

_PROCESS = Row(
    title="Server process",
    panels=(
        Panel(
            title="Event loop lag",
            description="How late a timer of the server fires. Above 0.25 s viewers get blocks late: the process is "
            "short of CPU.",
            queries=(
                Query(expr=quantile(0.5, "event_loop_lag_seconds"), legend="p50"),
                Query(expr=quantile(0.99, "event_loop_lag_seconds"), legend="p99"),
            ),
            unit="s",
            low=0,
            steps=(Step(at=None, colour=GREEN), Step(at=0.25, colour=RED)),
            width=12,
            alert="EventLoopLag",
        ),
        Panel(
            title="Last start of the workers",
            description="Seconds that each phase of it took.",
            queries=one(f"max by (pod, phase) ({series('model_load_duration_seconds')})", "{{pod}} {{phase}}"),
            unit="s",
            low=0,
            width=12,
            alert="EngineStartingTooLong",
        ),
        Panel(
            title="How far the start is",
            description="Part of each phase that a worker has done: reading files, measuring, capturing, warming up. "
            "Stays at 1 until workers are replaced.",
            queries=one(
                f"min by (pod, rank, phase) ({series('worker_start_progress_ratio')})",
                "{{pod}} rank {{rank}} {{phase}}",
            ),
            unit="percentunit",
            low=0,
            high=1,
            width=12,
            alert="EngineStartingTooLong",
        ),
        Panel(
            title="CPU of the server process",
            description="Cores in use by the process that answers HTTP; workers are processes of their own.",
            queries=one(of_process("process_cpu_seconds_total", WINDOW), "{{pod}}"),
            low=0,
            decimals=2,
        ),
        Panel(
            title="Memory of the server process",
            description="Resident, without workers. Flat in a healthy server.",
            queries=one(of_process("process_resident_memory_bytes"), "{{pod}}"),
            unit="bytes",
            low=0,
        ),
        Panel(
            title="Open files of the server process",
            description="Connections included.",
            queries=one(of_process("process_open_fds"), "{{pod}}"),
            low=0,
        ),
    ),
)

_GPUS = Row(
    title="GPUs",
    panels=(
        Panel(
            title="GPU readings",
            description="1 where NVML gives them. A server on CPUs has none, and the panels below stay empty.",
            kind=Kind.STATES,
            queries=one(f"max by (pod) ({series('nvml_available')})", "{{pod}}"),
            states={1: ("yes", GREEN), 0: ("no", GREY)},
            width=12,
            height=5,
        ),
        Panel(
            title="Which GPUs",
            description="Name and driver of each; the UUID joins them with other exporters.",
            kind=Kind.NUMBER,
            queries=one(
                f"count by (pod, gpu, uuid, name, driver) ({series('gpu_info', _GPU)})",
                "{{pod}} GPU {{gpu}}: {{name}}, driver {{driver}}, {{uuid}}",
            ),
            named=True,
            width=12,
            height=5,
        ),
        Panel(
            title="Utilisation",
            description="Part of the time that a kernel ran. Near 1 under load says little: see stages on the "
            "Pipeline dashboard.",
            queries=(
                Query(expr=_gpu("gpu_utilization_ratio"), legend=_LEGEND),
                Query(expr=_gpu("gpu_encoder_utilization_ratio"), legend=f"{_LEGEND} encoder"),
            ),
            unit="percentunit",
            low=0,
            high=1,
        ),
        Panel(
            title="Memory",
            description="In use by all processes, and what the device has.",
            queries=(
                Query(expr=_gpu("gpu_memory_used_bytes"), legend=_LEGEND),
                Query(expr=_gpu("gpu_memory_total_bytes"), legend=f"{_LEGEND} has"),
            ),
            unit="bytes",
            low=0,
            alert="GpuMemoryHigh",
        ),
        Panel(
            title="Power",
            description="Drawn now.",
            queries=one(_gpu("gpu_power_watts"), _LEGEND),
            unit="watt",
            low=0,
            stacked=True,
        ),
        Panel(
            title="Energy for a second of video",
            description="Energy of all GPUs of a server over the video it made. Rises when the server idles.",
            queries=one(
                f"{rate('gpu_energy_joules_total', by='pod')} / "
                f"({rate('video_generated_seconds_total', by='pod')} > 0)",
                "{{pod}}",
            ),
            unit="joule",
            low=0,
        ),
        Panel(
            title="Temperature",
            description="Of the chip.",
            queries=one(_gpu("gpu_temperature_celsius"), _LEGEND),
            unit="celsius",
            alert="GpuThrottled",
        ),
        Panel(
            title="Clock of the multiprocessors",
            description="Falls when the GPU rests or is throttled.",
            queries=one(_gpu("gpu_sm_clock_hertz"), _LEGEND),
            unit="hertz",
            low=0,
        ),
        Panel(
            title="Throttling",
            description="Why the clock is held down. power_cap is usual under full load.",
            kind=Kind.STATES,
            queries=one(
                f"max by (pod, gpu, reason) ({series('gpu_throttled', _GPU)})", "{{pod}} GPU {{gpu}} {{reason}}"
            ),
            states={0: ("no", GREY), 1: ("throttled", ORANGE)},
            width=12,
            alert="GpuThrottled",
        ),
        Panel(
            title="Faults",
            description="Over the time shown: memory errors, rows replaced, and critical driver errors (XID).",
            kind=Kind.NUMBER,
            queries=(
                Query(
                    expr=f"sum by (kind) (increase({series('gpu_ecc_errors_total', _GPU)}[$__range]))",
                    legend="ECC {{kind}}",
                ),
                Query(
                    expr=f"sum by (kind) (increase({series('gpu_remapped_rows_total', _GPU)}[$__range]))",
                    legend="rows {{kind}}",
                ),
                Query(expr=_gpu_grown("gpu_xid_errors_total"), legend=f"XID {_LEGEND}"),
            ),
            steps=(Step(at=None, colour=BLUE), Step(at=1, colour=RED)),
            spark=False,
            width=12,
            alert="GpuXid",
        ),
    ),
)

CAPACITY = Board(
    uid="hiar-capacity",
    title="HiAR / Capacity",
    description="Places, pages and GPUs: what there is and what is used of it.",
    rows=(_PLACES, _PROCESS, _GPUS),
    variables=(NAMESPACE, POD, GPU),
)
