"""What must hold between the objects of the chart and no schema can say. Each check names what is wrong, or nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from server.app import create_app
from server.metrics.endpoint import PATH as METRICS_PATH
from server.metrics.families import PREFIX, Families
from server.settings import Settings
from tests.deploy.chart import NAMESPACE, Object, Pods, Rendered, pods_of, selects
from tests.instant import InstantEngine

_FAMILIES = Families(num_stages=4)
METRICS = {sample.name for family in _FAMILIES.registry.collect() for sample in family.samples}
ROUTES = {getattr(route, "path", "") for route in create_app(Settings(), InstantEngine(), _FAMILIES).routes}
ADAPTED = "hiar_video_load"
"""Not ours: the README shows how an adapter makes it."""


def names(rendered: Rendered) -> Iterator[str]:
    """Every name is taken once, fits where it is used, and leaves LeaderWorkerSet the service that it makes."""
    taken = Counter((item["kind"], item["metadata"]["name"]) for item in rendered.objects)
    yield from (f"{kind} {name} is there {times} times" for (kind, name), times in taken.items() if times > 1)
    yield from (f"{kind} {name} is too long" for kind, name in taken if len(name) > 63)
    for group in rendered.of("LeaderWorkerSet"):
        if ("Service", group["metadata"]["name"]) in taken:
            yield f"LeaderWorkerSet {group['metadata']['name']} would take our service for its headless one"


def selectors(rendered: Rendered) -> Iterator[str]:
    """Whoever selects pods selects those that it means, and no others."""
    for pods in pods_of(rendered):
        if (pods.rank > 0) != (pods.role == "node"):
            yield f"{pods.owner}: pod {pods.rank} of a group has the role {pods.role}"
        for spread in pods.spec.get("topologySpreadConstraints", ()):
            if not selects(spread["labelSelector"], pods.labels):
                yield f"{pods.owner}: a spread over {spread['topologyKey']} counts other pods"
    for item in rendered.of("StatefulSet"):
        yield from _selected(item, item["spec"]["selector"], rendered, {"server"})
    for item in rendered.of("Service"):
        yield from _selected(item, {"matchLabels": item["spec"]["selector"]}, rendered, {"server"})
    for item in rendered.of("PodDisruptionBudget"):
        yield from _selected(item, item["spec"]["selector"], rendered, {"server", "node"})
    for item in rendered.of("NetworkPolicy"):
        roles = {"download"} if item["metadata"]["name"].endswith("-download") else {"server", "node"}
        yield from _selected(item, item["spec"]["podSelector"], rendered, roles)
    for item in rendered.of("ServiceMonitor"):
        found = [one for one in rendered.of("Service") if selects(item["spec"]["selector"], one["metadata"]["labels"])]
        if len(found) != 1:
            yield f"ServiceMonitor selects {len(found)} services"


def _selected(item: Object, selector: dict[str, Any], rendered: Rendered, roles: set[str]) -> Iterator[str]:
    pods = pods_of(rendered)
    found = {one.role for one in pods if selects(selector, one.labels)}
    wanted = {one.role for one in pods if one.role in roles}
    if found != wanted:
        yield f"{item['kind']} {item['metadata']['name']} selects {sorted(found)} and means {sorted(wanted)}"


def ports(rendered: Rendered) -> Iterator[str]:
    """Every port that is named or numbered somewhere is one that a container opens."""
    for service in rendered.of("Service"):
        opened = _opened(rendered, service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in opened:
                yield f"Service {service['metadata']['name']}: no container opens {port['targetPort']}"
            if service["spec"].get("clusterIP") == "None" and port["port"] != opened.get(port["targetPort"]):
                yield f"Service {service['metadata']['name']}: port {port['port']} is not the pod's"
    for pods in pods_of(rendered):
        numbers = Counter(pods.ports.values())
        yield from (f"{pods.owner} opens {number} twice" for number, times in numbers.items() if times > 1)
    yield from _unknown_service_ports(rendered)


def _opened(rendered: Rendered, selector: dict[str, str]) -> dict[str, int]:
    pods = [one for one in pods_of(rendered) if selects({"matchLabels": selector}, one.labels)]
    return {name: number for one in pods for name, number in one.ports.items()}


def _unknown_service_ports(rendered: Rendered) -> Iterator[str]:
    services = {item["metadata"]["name"]: item["spec"]["ports"] for item in rendered.of("Service")}
    known = {
        (name, key) for name, listed in services.items() for port in listed for key in (port["name"], port["port"])
    }
    for item in rendered.of("Ingress"):
        for rule in item["spec"]["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            if (backend["name"], backend["port"].get("name", backend["port"].get("number"))) not in known:
                yield f"Ingress: no service {backend}"
    for item in rendered.of("HTTPRoute"):
        for backend in item["spec"]["rules"][0]["backendRefs"]:
            if (backend["name"], backend["port"]) not in known:
                yield f"HTTPRoute: no service {backend}"
    for item in rendered.of("ServiceMonitor"):
        found = [one for one in rendered.of("Service") if selects(item["spec"]["selector"], one["metadata"]["labels"])]
        for endpoint in item["spec"]["endpoints"]:
            if not all((one["metadata"]["name"], endpoint["port"]) in known for one in found):
                yield f"ServiceMonitor: no port {endpoint['port']}"


def policies(rendered: Rendered) -> Iterator[str]:
    """What pods open can be reached, pods of a group reach each other, and only who downloads leaves the cluster."""
    pods, values = pods_of(rendered), rendered.values
    for policy in rendered.of("NetworkPolicy"):
        spec = policy["spec"]
        inside = [one for one in pods if selects(spec["podSelector"], one.labels)]
        let_in = {port["port"] for rule in spec.get("ingress", ()) for port in rule.get("ports", ())}
        opened = {
            number for one in inside for name, number in one.ports.items() if name != "metrics" or _scraped(values)
        }
        if let_in != opened:
            yield f"NetworkPolicy {policy['metadata']['name']} lets in at {sorted(let_in)} and not {sorted(opened)}"
        if values["topology"]["mode"] == "lws" and any(one.role == "server" for one in inside):
            for direction, peers in (("ingress", "from"), ("egress", "to")):
                if not any(_joins(rule, peers, inside) for rule in spec[direction]):
                    yield f"NetworkPolicy: pods of a group have no {direction}"
        outwards = {port["port"] for rule in spec["egress"] for port in rule.get("ports", ()) if "to" not in rule} - {
            53
        }
        wanted = set(values["model"]["download"]["ports"]) if any(_downloads(one) for one in inside) else set()
        if values["durability"]["databaseSecret"]["name"] and any(one.role == "server" for one in inside):
            wanted |= set(values["durability"]["ports"])
        if outwards != wanted:
            yield f"NetworkPolicy {policy['metadata']['name']} opens ports {sorted(outwards)} and not {sorted(wanted)}"


def _joins(rule: Object, peers: str, inside: list[Pods]) -> bool:
    """Whether a rule joins all these pods to each other, at any port."""
    own = [peer["podSelector"] for peer in rule.get(peers, ()) if peer.keys() == {"podSelector"}]
    return "ports" not in rule and all(any(selects(selector, one.labels) for selector in own) for one in inside)


def _scraped(values: dict[str, Any]) -> bool:
    return bool(values["metrics"]["serviceMonitor"]["enabled"] or values["networkPolicy"]["metricsFrom"])


def _downloads(pods: Pods) -> bool:
    return any(container["command"][0] == "hiar-download" for container in pods.containers)


def probes(rendered: Rendered) -> Iterator[str]:
    """Probes ask what the application answers, at a port that the container has; so does Prometheus."""
    for pods in pods_of(rendered):
        if pods.role == "server" and "readinessProbe" not in pods.spec["containers"][0]:
            yield f"{pods.owner} is never seen to be ready"
        for container in pods.containers:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(kind, {}).get("httpGet")
                if asked and (asked["path"] not in ROUTES or asked["port"] not in pods.ports):
                    yield f"{pods.owner}: {kind} asks for {asked['path']} at {asked['port']}"
    for item in rendered.of("ServiceMonitor"):
        yield from (
            f"ServiceMonitor: {end['path']}" for end in item["spec"]["endpoints"] if end["path"] != METRICS_PATH
        )


def references(rendered: Rendered) -> Iterator[str]:
    """Every secret, config map, claim and account that is named is made here or named in the values."""
    made = {(item["kind"], item["metadata"]["name"]) for item in rendered.objects}
    known = made | _given(rendered.values)
    for pods in pods_of(rendered):
        for kind, name in _referred(pods):
            if (kind, name) not in known:
                yield f"{pods.owner}: there is no {kind} {name}"
    for kind, name in made & {(kind, name) for kind, name in _given(rendered.values) if kind == "Secret"}:
        yield f"{kind} {name} is yours, and made here too"


def _given(values: dict[str, Any]) -> set[tuple[str, str]]:
    download, volume, kept = values["model"]["download"], values["model"]["volume"], values["durability"]
    secrets = [values["topology"]["lws"]["groupTokenSecret"]["name"], download["tokenSecret"]["name"]]
    secrets += [item["name"] for item in values["image"]["pullSecrets"]]
    secrets += [item["secretRef"]["name"] for item in values["extraEnvFrom"]]
    maps = [item["configMap"]["name"] for item in values["extraVolumes"]]
    account = values["serviceAccount"]["name"] or "default"
    return {
        *(("Secret", name) for name in secrets if name),
        *(("ConfigMap", name) for name in maps),
        ("PersistentVolumeClaim", volume["existingClaim"]),
        ("PersistentVolumeClaim", kept["volume"]["existingClaim"]),
        ("Secret", kept["databaseSecret"]["name"]),
        ("Secret", kept["storeSecret"]["name"]),
        *([] if values["serviceAccount"]["create"] else [("ServiceAccount", account)]),
    }


def _referred(pods: Pods) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", pods.spec["serviceAccountName"]
    yield from (("Secret", item["name"]) for item in pods.spec.get("imagePullSecrets", ()))
    for volume in pods.spec.get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in pods.containers:
        for item in container.get("env", ()):
            if "secretKeyRef" in item.get("valueFrom", {}):
                yield "Secret", item["valueFrom"]["secretKeyRef"]["name"]
        yield from (("Secret", item["secretRef"]["name"]) for item in container.get("envFrom", ()))


def secrets(rendered: Rendered) -> Iterator[str]:
    """Nothing secret is written where everyone may read it."""
    secret = re.compile(r"hf_[A-Za-z0-9]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:password|api[_-]?key)\W{1,4}\w")
    for item in rendered.of("ConfigMap"):
        yield from (f"ConfigMap {item['metadata']['name']}" for text in item["data"].values() if secret.search(text))
    for pods in pods_of(rendered):
        for container in pods.containers:
            for variable in container.get("env", ()):
                if re.search("TOKEN|SECRET|PASSWORD|API_?KEY", variable["name"]) and "value" in variable:
                    yield f"{pods.owner}: {variable['name']} is written out"


def scaling(rendered: Rendered) -> Iterator[str]:
    """An autoscaler scales what there is, by metrics that there are, and nobody else sets the number of pods."""
    workloads = {
        (item["kind"], item["metadata"]["name"]): item for item in rendered.of("StatefulSet", "LeaderWorkerSet")
    }
    scalers = rendered.of("HorizontalPodAutoscaler", "ScaledObject")
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        workload = workloads.get((target["kind"], target["name"]))
        if workload is None or workload["apiVersion"] != target["apiVersion"]:
            yield f"{scaler['kind']}: there is no {target['kind']} {target['name']}"
    for item in workloads.values():
        if ("replicas" in item["spec"]) == bool(scalers):
            yield f"{item['kind']}: replicas are set {'twice' if scalers else 'by nobody'}"
    for scaler in scalers:
        unknown = _metrics_of(scaler) - METRICS - {ADAPTED}
        yield from (f"{scaler['kind']}: there is no metric {name}" for name in sorted(unknown))
        services = {
            item["metadata"]["name"]
            for item in rendered.of("Service")
            if any(port["name"] == "metrics" for port in item["spec"]["ports"])
        }
        for namespace, service in re.findall(r'namespace="([^"]*)",service="([^"]*)"', str(scaler["spec"])):
            if namespace != NAMESPACE or service not in services:
                yield f"{scaler['kind']}: nothing has the labels {namespace}, {service}"


def _metrics_of(scaler: Object) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}_[a-z_]+", str(scaler["spec"].get("triggers", scaler["spec"].get("metrics")))))


LINK_CHECKS = (names, selectors, ports, policies, probes, references, secrets, scaling)
