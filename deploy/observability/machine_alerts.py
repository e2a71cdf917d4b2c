"""Alerts on what runs short: places for videos, CPU, and GPUs, as far as NVML reads them."""

from deploy.observability.rules import PER_POD, WHERE, Alert, Condition, Severity

CAPACITY_ALERTS = (
    Alert(
        name="QueueSaturated",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at=f"{PER_POD} (hiar_videos_waiting) / ({PER_POD} (hiar_video_queue_capacity) > 0)",
                bad="> 0.8",
            ),
        ),
        lasting="5m",
        summary="The queue is nearly full",
        description=f"At {WHERE}, {{{{ $value | humanizePercentage }}}} of the queue is taken; soon requests are "
        "refused.",
        runbook=(
            "Add servers, or let autoscaling: see `hiar:video_load` and whether it is at its maximum.",
            "If videos are few and the queue is long, the machine is slower than planned: see BelowRealtime.",
        ),
    ),
    Alert(
        name="Rejecting",
        severity=Severity.TICKET,
        conditions=(
            Condition(looks_at=f'{PER_POD} (rate(hiar_requests_rejected_total{{reason="queue_full"}}[5m]))', bad="> 0"),
        ),
        lasting="10m",
        summary="Requests are refused because the queue is full",
        description=f"{WHERE} has been refusing requests for ten minutes.",
        runbook=(
            "As QueueSaturated. Clients are told to come back (`Retry-After`), so this is lost demand, not an error.",
            "One client that does not wait before it asks again shows as many refusals and few new videos.",
        ),
    ),
    Alert(
        name="EventLoopLag",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at="histogram_quantile(0.99, sum by (namespace, pod, le) "
                "(rate(hiar_event_loop_lag_seconds_bucket[5m])))",
                bad="> 0.25",
            ),
        ),
        lasting="5m",
        summary="The server process is short of CPU",
        description=f"Timers of {WHERE} fire {{{{ $value | humanizeDuration }}}} late; every viewer gets blocks late.",
        runbook=(
            "Look for CPU throttling of the container: raise its CPU request and limit.",
            "Workers on CPUs compete with the server for cores: name fewer `--devices`.",
        ),
    ),
)

GPU_ALERTS = (
    Alert(
        name="GpuXid",
        severity=Severity.PAGE,
        conditions=(
            Condition(looks_at="max by (namespace, pod, gpu) (increase(hiar_gpu_xid_errors_total[10m]))", bad="> 0"),
        ),
        lasting="",
        summary="The driver reports a critical GPU error",
        description=f"GPU {{{{ $labels.gpu }}}} of {WHERE} had an XID error.",
        runbook=(
            "`dmesg | grep -i xid` on the node has the number; NVIDIA's list of XID errors says what it means.",
            "Cordon the node if it is 48, 64, 74, 79 or 95: memory, link, or a GPU that fell off its bus.",
            "Delete the pod so that it starts elsewhere; reset or replace the GPU before the node is used again.",
        ),
    ),
    Alert(
        name="GpuEccUncorrectable",
        severity=Severity.PAGE,
        conditions=(
            Condition(
                looks_at='max by (namespace, pod, gpu) (increase(hiar_gpu_ecc_errors_total{kind="uncorrected"}[10m]))',
                bad="> 0",
            ),
        ),
        lasting="",
        summary="GPU memory returned wrong data",
        description=f"GPU {{{{ $labels.gpu }}}} of {WHERE} had an uncorrectable memory error.",
        runbook=(
            "Cordon the node and delete the pod. Pictures made since may be wrong.",
            "`nvidia-smi -q -d ECC,ROW_REMAPPER`: a pending remapping takes effect at a reset; a failed one means that "
            "the GPU has to be replaced.",
        ),
    ),
    Alert(
        name="GpuThrottled",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at='max by (namespace, pod, gpu, reason) (hiar_gpu_throttled{reason!="power_cap"})', bad="> 0"
            ),
        ),
        lasting="10m",
        summary="A GPU is slowed down",
        description=f"The clock of GPU {{{{ $labels.gpu }}}} of {WHERE} has been held down for ten minutes: "
        "{{ $labels.reason }}.",
        runbook=(
            "`sw_thermal`, `hw_thermal`: cooling; compare temperatures on the Capacity dashboard.",
            "`hw_power_brake`, `hw_slowdown`: the machine's power supply.",
            "`power_cap` is usual under full load and fires nothing.",
        ),
    ),
    Alert(
        name="GpuMemoryHigh",
        severity=Severity.TICKET,
        conditions=(
            Condition(
                looks_at="max by (namespace, pod, gpu) (hiar_gpu_memory_used_bytes / hiar_gpu_memory_total_bytes)",
                bad="> 0.97",
            ),
        ),
        lasting="10m",
        summary="GPU memory is nearly full",
        description=f"GPU {{{{ $labels.gpu }}}} of {WHERE} has {{{{ $value | humanizePercentage }}}} of its memory "
        "in use.",
        runbook=(
            "The server takes its pages at the start, once: look for other programs on the GPU.",
            "If it is the server alone, lower `--max-videos` before a pass runs out of memory.",
        ),
    ),
)
