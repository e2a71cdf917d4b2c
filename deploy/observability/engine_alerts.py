"""Alerts on the engine and its workers. What comes with a stop that somebody asked for fires none of them."""

from deploy.observability.rules import PER_POD, WHERE, Alert, Condition, Severity

ENGINE_ALERTS = (
    Alert(
        name="EngineDown",
        severity=Severity.PAGE,
        conditions=(
            Condition(
                looks_at=f'{PER_POD} (hiar_engine_state{{state=~"ready|starting|restarting|draining"}})', bad="== 0"
            ),
        ),
        lasting="1m",
        summary="The engine has given up",
        description=f"{WHERE} is neither serving nor on its way to it; every request is refused.",
        runbook=(
            "The server's log says why: a setting or a file that is wrong, or six worker groups lost in ten minutes.",
            "`/livez` fails in this state, so Kubernetes restarts the container. If it does and this comes back, the "
            "cause is lasting: look at the first error after the start.",
            "Losses by the same rank (`hiar_worker_losses_total`) point to its device: check it with `nvidia-smi -q`, "
            "and move the server to another node while it is looked into.",
        ),
    ),
    Alert(
        name="EngineStartingTooLong",
        severity=Severity.PAGE,
        conditions=(Condition(looks_at=f'{PER_POD} (hiar_engine_state{{state=~"starting|restarting"}})', bad="== 1"),),
        lasting="20m",
        summary="The engine has been starting for 20 minutes",
        description=f"{WHERE} serves nobody: its workers are still starting, or are being replaced again and again.",
        runbook=(
            "See in the log which phase it is in: measuring, loading, warming up, or waiting for other nodes.",
            "Loading: compare the read rate of the model volume with what it should give; a cold "
            "network volume is slow.",
            "Waiting for nodes: see that every node runs, has the same number of nodes, and reaches node 0 on the "
            "master port and the one after it.",
            "Phases of earlier starts are in `hiar_model_load_duration_seconds`; if this model simply takes longer, "
            "raise the duration of this alert.",
        ),
    ),
    Alert(
        name="EngineRestartLoop",
        severity=Severity.PAGE,
        conditions=(Condition(looks_at=f"{PER_POD} (increase(hiar_engine_restarts_total[30m]))", bad="> 3"),),
        lasting="",
        summary="Workers keep dying",
        description=f"{WHERE} has replaced its workers {{{{ $value | humanize }}}} times in 30 minutes; at each, "
        "every video of it pauses.",
        runbook=(
            "`hiar_worker_losses_total` says which rank, and whether it died or hung. A stack of a hung worker is in "
            "the log.",
            "Always the same rank: suspect its device (GpuXid, GpuEccUncorrectable) and move the server off it.",
            "Any rank, together with `OOMKilled` in the pod's events: raise the memory limit, or lower the number of "
            "videos.",
            "Always the same video: the server ends it by itself when worker after worker dies over it; keep its "
            "request for a report.",
        ),
    ),
    Alert(
        name="WorkerHeartbeatStale",
        severity=Severity.PAGE,
        conditions=(
            Condition(
                looks_at="max by (namespace, pod, rank) (time() - hiar_worker_last_heartbeat_timestamp_seconds)",
                bad="> 15",
            ),
            Condition(looks_at="max by (namespace, pod, rank) (hiar_worker_tickets_waiting)", bad="> 0"),
        ),
        lasting="30s",
        summary="A worker owes work and is silent",
        description=f"Worker {{{{ $labels.rank }}}} of {WHERE} was last heard of {{{{ $value | humanize }}}} s ago "
        "and was not replaced.",
        runbook=(
            "The server replaces such a worker after `--stage-timeout` (20 s by default). If that is longer than 45 s "
            "here, raise this alert's limit with it.",
            "Otherwise the server itself is stuck: see EventLoopLag and whether `/livez` answers.",
            "Delete the pod; running videos of it end. Keep its log.",
        ),
    ),
    Alert(
        name="ServerUnreachable",
        severity=Severity.PAGE,
        conditions=(
            Condition(looks_at="min by (namespace, pod) (up)", bad="== 0"),
            Condition(looks_at="max by (namespace, pod) (last_over_time(hiar_build_info[1h]))", bad=""),
        ),
        lasting="2m",
        summary="A server does not answer Prometheus",
        description=f"{WHERE} is there and cannot be scraped; it answered within the last hour.",
        runbook=(
            "`kubectl describe pod` and the log of the previous container say whether it crashes.",
            "If it runs: `/livez` and `/metrics` from inside the pod. Both fail: the process hangs, delete the pod.",
            "Only Prometheus fails: a NetworkPolicy that lacks its namespace, or another metrics port.",
        ),
    ),
    Alert(
        name="MetricsAbsent",
        severity=Severity.PAGE,
        conditions=(Condition(looks_at="absent(hiar_videos_running)", bad=""),),
        lasting="5m",
        summary="No server reports anything",
        description="Prometheus has no series of any HiAR server: none runs, or none is scraped.",
        runbook=(
            "Prometheus' list of targets says whether it finds the servers and why scraping fails.",
            "No target: the ServiceMonitor's labels do not suit this Prometheus, or no pod is there.",
            "If this system was taken down on purpose, silence this alert.",
        ),
    ),
)
