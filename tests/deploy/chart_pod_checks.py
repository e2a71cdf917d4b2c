"""What must hold in the pods that the chart makes and no schema can say. Each check names what is wrong, or nothing."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import hiar_client.cli
import server.download.command
from engine import PARTIAL_NAME
from engine.fleet.hello import TOKEN_VARIABLE
from server.download.folder import COMPLETE_NAME
from server.options import OPTIONS
from server.settings import SettingError, Settings, read_settings
from tests.deploy.chart import ROOT, Pods, Rendered, environment_of, pods_of

SETTINGS = {option.env for option in OPTIONS}
LIBRARIES = {"TRITON_CACHE_DIR", "CUDA_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR"}
CLIENTS = {"HIAR_URL", "HF_TOKEN"}
KUBERNETES = {"POD_NAME"}
"""For values of others."""
PROJECTS = [tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in (".", "clients")]
COMMANDS = {"sh", *(command for project in PROJECTS for command in project["scripts"])}
PARSERS = {"hiar": hiar_client.cli._parser, "hiar-download": server.download.command._parser}
_SCALES = {"": 0, "m": -1, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def settings(rendered: Rendered) -> Iterator[str]:
    """The server reads its environment, and finds in it what the values say."""
    for pods in servers(rendered):
        try:
            found = settings_of(pods)
        except SettingError as error:
            yield f"{pods.owner}: {error}"
            continue
        for name, (has, wanted) in _compared(found, rendered.values, pods).items():
            if has != wanted:
                yield f"{pods.owner}: the server takes {name} as {has!r}, and the values say {wanted!r}"


def settings_of(pods: Pods) -> Settings:
    """What the server in such a pod reads, LeaderWorkerSet's variables included. Raises ``SettingError``."""
    container = pods.spec["containers"][0]
    environment = environment_of(container)
    if pods.owner.startswith("LeaderWorkerSet"):
        environment |= {"LWS_LEADER_ADDRESS": "g-0.g.n", "LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": str(pods.rank)}
    return read_settings([*container["command"][1:], *container.get("args", ())], environment)


def _compared(found: Settings, values: Mapping[str, Any], pods: Pods) -> dict[str, tuple[object, object]]:
    ours, model, count = values["server"], values["model"], values["devices"]["count"]
    keys, kept = values["auth"]["keysSecret"], values["durability"]
    cuda = [f"cuda:{number}" for number in range(count)]
    return {
        "host": (found.host, ours["host"]),
        "port": (found.port, ours["port"]),
        "metrics_port": (found.metrics_port, values["metrics"]["port"]),
        "model": (found.model, Path("/models") / model["name"] if model["name"] else Settings.model),
        "preset": (found.preset, model["preset"] or None),
        "decoder": (found.decoder, model["decoder"] or None),
        "kv_dtype": (found.engine.precision.kv_dtype, model["kvDtype"]),
        "linear_dtype": (found.engine.precision.linear_dtype, model["linearDtype"]),
        "attention_dtype": (found.engine.precision.attention_dtype, model["attentionDtype"]),
        "devices": (found.engine.devices, tuple(cuda if values["devices"]["kind"] == "cuda" else ["cpu"] * count)),
        "max_videos": (found.engine.max_videos, ours["maxVideos"]),
        "max_queue": (found.engine.max_queue, ours["maxQueue"]),
        "max_seconds": (found.max_seconds, ours.get("maxVideoSeconds")),
        "lead_target_s": (found.engine.lead_target_s, ours["leadTargetSeconds"]),
        "stage_timeout_s": (found.engine.stage_timeout_s, ours["stageTimeoutSeconds"]),
        "recovery_grace_s": (found.engine.recovery_grace_s, ours["recoveryGraceSeconds"]),
        "drain_timeout_s": (found.drain_timeout_s, values["shutdown"]["drainSeconds"]),
        "log_level": (found.log_level, ours["logLevel"]),
        "log_format": (found.log_format, ours["logFormat"]),
        "max_per_client": (found.max_per_client, ours["maxPerClient"]),
        "max_upload": (found.max_upload, ours["maxUploadBytes"]),
        "cors_origins": (found.cors_origins, tuple(ours["corsOrigins"])),
        "trusted_proxies": (found.trusted_proxies, tuple(ours["trustedProxies"])),
        "data": (found.data, "/data" if kept["existingClaim"] else "memory"),
        "database": (found.database is not None, bool(kept["databaseSecret"]["name"])),
        "store": (found.store, kept["store"] or None),
        "keep_hours": (found.keep_hours, kept["keepHours"]),
        "keep_bytes": (found.keep_bytes, kept.get("keepBytes")),
        "keys": (found.keys, Path("/keys") / keys["key"] if keys["name"] else None),
        "insecure": (found.insecure, not keys["name"]),
        "node_rank": (found.engine.nodes.rank if found.engine.nodes else 0, int(pods.role == "node")),
    }


def environment(rendered: Rendered) -> Iterator[str]:
    """Every variable is known to somebody, and set once; a service cannot add any."""
    chosen = rendered.values["extraEnv"] + rendered.values["model"]["download"]["extraEnv"]
    known = SETTINGS | LIBRARIES | CLIENTS | KUBERNETES | {TOKEN_VARIABLE} | {item["name"] for item in chosen}
    for pods in pods_of(rendered):
        if pods.spec.get("enableServiceLinks") is not False:
            yield f"{pods.owner}: a service named hiar would set HIAR_PORT"
        for container in pods.containers:
            names = Counter(item["name"] for item in container.get("env", ()))
            yield from (f"{pods.owner}: nobody reads {name}" for name in names if name not in known)
            yield from (f"{pods.owner}: {name} is set {times} times" for name, times in names.items() if times > 1)


def commands(rendered: Rendered) -> Iterator[str]:
    """What containers run is installed in the image, and takes what it is told."""
    for pods in pods_of(rendered):
        for container in pods.containers:
            name, *arguments = container["command"]
            if name not in COMMANDS:
                yield f"{pods.owner}: {name} is no command of ours"
            elif name in PARSERS:
                try:
                    PARSERS[name]().parse_args(arguments)
                except SystemExit:
                    yield f"{pods.owner}: {name} does not take {' '.join(arguments)}"


def waiting(rendered: Rendered) -> Iterator[str]:
    """A pod whose model somebody else downloads waits for what the download leaves when it is complete."""
    model = rendered.values["model"]
    for pods in servers(rendered):
        first = [" ".join(container["command"]) for container in pods.spec.get("initContainers", ())]
        if not model["download"]["source"]:
            continue
        folder = f"/models/{model['name']}"
        marks = (f"-f {folder}/{COMPLETE_NAME} ", f"! -e {folder}/{PARTIAL_NAME} ")
        wanted = ("hiar-download", f"--to {folder}") if model["volume"]["kind"] == "perPod" else marks
        if not any(all(part in command for part in wanted) for command in first):
            yield f"{pods.owner}: nothing waits for the model"


def gpus(rendered: Rendered) -> Iterator[str]:
    """A server asks for exactly the GPUs that its devices name; nobody else asks for one."""
    resource = rendered.values["devices"]["gpuResource"]
    for pods in pods_of(rendered):
        for container in pods.containers:
            names = environment_of(container).get("HIAR_DEVICES", "").split(",")
            wanted = [f"cuda:{number}" for number in range(sum(name.startswith("cuda") for name in names))]
            asked = container.get("resources", {}).get("limits", {}).get(resource, 0)
            if asked != len(wanted) or (wanted and names != wanted):
                yield f"{pods.owner}: {asked} GPUs for devices {','.join(names)}"


def grace(rendered: Rendered) -> Iterator[str]:
    """Kubernetes waits for as long as the pod sleeps, drains and stops."""
    for pods in servers(rendered):
        container = pods.spec["containers"][0]
        sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed_s = sleep_s + settings_of(pods).drain_timeout_s + rendered.values["shutdown"]["stopSeconds"]
        has_s = pods.spec.get("terminationGracePeriodSeconds", 30)
        if has_s != needed_s:
            yield f"{pods.owner}: is killed after {has_s} s and needs {needed_s:g} s"


def volumes(rendered: Rendered) -> Iterator[str]:
    """Mounts and volumes fit together, and what the server writes to or reads from is mounted."""
    for pods in pods_of(rendered):
        names = [volume["name"] for volume in pods.spec.get("volumes", ())] + list(pods.claims)
        mounts = [mount for container in pods.containers for mount in container.get("volumeMounts", ())]
        yield from (f"{pods.owner}: volume {name} is there twice" for name, n in Counter(names).items() if n > 1)
        yield from (f"{pods.owner}: no volume {mount['name']}" for mount in mounts if mount["name"] not in names)
        mounted = {mount["name"] for mount in mounts}
        yield from (f"{pods.owner}: volume {name} is not mounted" for name in names if name not in mounted)
    for pods in servers(rendered):
        yield from (f"{pods.owner}: {fault}" for fault in _unmounted(pods))


def _unmounted(pods: Pods) -> Iterator[str]:
    container = pods.spec["containers"][0]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    yield from (f"{path} is not writable" for path in ("/tmp", "/dev/shm") if path not in writable)
    environment = environment_of(container)
    for name in LIBRARIES:
        if environment[name].rpartition("/")[0] not in writable:
            yield f"{name} is not writable"
    readable = {mount["mountPath"] for mount in container["volumeMounts"]}
    if "HIAR_MODEL" in environment and environment["HIAR_MODEL"].rpartition("/")[0] not in readable:
        yield "the model is not mounted"
    if "server" in pods.role and environment["HIAR_DATA"] not in {*writable, "memory"}:
        yield "the folder of videos is not writable"
    if "HIAR_KEYS" in environment and environment["HIAR_KEYS"].rpartition("/")[0] not in readable:
        yield "the keys are not mounted"


def quantities(rendered: Rendered) -> Iterator[str]:
    """Sizes are quantities, requests fit in limits, and shared memory fits in memory."""
    for pods in pods_of(rendered):
        memory: list[Decimal] = []
        for container in pods.containers:
            resources = container.get("resources", {})
            limits = {name: _quantity(text) for name, text in resources.get("limits", {}).items()}
            requests = {name: _quantity(text) for name, text in resources.get("requests", {}).items()}
            yield from _bad_amounts(pods, requests, limits)
            memory.append(limits.get("memory") or Decimal(0))
        for volume in pods.spec.get("volumes", ()):
            size = _quantity(volume.get("emptyDir", {}).get("sizeLimit", "1"))
            if size is None or (volume.get("emptyDir", {}).get("medium") == "Memory" and size >= max(memory)):
                yield f"{pods.owner}: volume {volume['name']} has an impossible size"
    for claim in rendered.of("PersistentVolumeClaim"):
        if _quantity(claim["spec"]["resources"]["requests"]["storage"]) is None:
            yield f"{claim['metadata']['name']} has an impossible size"


def _bad_amounts(pods: Pods, requests: dict[str, Decimal | None], limits: dict[str, Decimal | None]) -> Iterator[str]:
    for name, amount in [*requests.items(), *limits.items()]:
        if amount is None or amount > (limits.get(name) or amount):
            yield f"{pods.owner}: {name} of {amount} is impossible"


def _quantity(text: object) -> Decimal | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|[KMGTP]i|[MGTP])?", str(text))
    if match is None:
        return None
    number, unit = match[1], match[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    return Decimal(number) * Decimal(base) ** _SCALES[unit.removesuffix("i")]


def images(rendered: Rendered) -> Iterator[str]:
    """Every image is one that stays what it is."""
    for pods in pods_of(rendered):
        for container in pods.containers:
            _, _, last = container["image"].rpartition("/")
            if not re.fullmatch(r"[^:@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", last):
                yield f"{pods.owner}: image {container['image']} is not pinned"


def security(rendered: Rendered) -> Iterator[str]:
    """Pods could run where Kubernetes' restricted policy holds, on a root that nobody can write to."""
    for pods in pods_of(rendered):
        pod = pods.spec.get("securityContext", {})
        if not (pod.get("runAsNonRoot") and pod.get("runAsUser") == pod.get("fsGroup") == 10001):
            yield f"{pods.owner}: does not run as user 10001"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pods.owner}: has no seccomp profile"
        if pods.spec.get("automountServiceAccountToken") is not False:
            yield f"{pods.owner}: gets a token of Kubernetes"
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for container in pods.containers:
            if container.get("securityContext") != wanted:
                yield f"{pods.owner}: container {container['name']} may do too much"


def servers(rendered: Rendered) -> list[Pods]:
    """Pods that run the server, in either role."""
    return [pods for pods in pods_of(rendered) if pods.role in {"server", "node"}]


POD_CHECKS = (settings, environment, commands, waiting, gpus, grace, volumes, quantities, images, security)
