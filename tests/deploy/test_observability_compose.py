"""The compose file brings up server, Prometheus and Grafana that find each other, and nothing is imported by hand."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from server.settings import Settings
from tests.deploy.real_prometheus import ROOT, promtool

DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def mounts(service: str) -> dict[str, Path]:
    """Where in the container -> what on this machine, for bind mounts."""
    entries = [entry.split(":") for entry in SERVICES[service].get("volumes", ())]
    return {inside: DEPLOY / outside for outside, inside, *_ in entries if outside.startswith(".")}


def published(service: str) -> dict[int, int]:
    """Port on this machine -> port in the container; all on loopback."""
    entries = [entry.split(":") for entry in SERVICES[service]["ports"]]
    assert all(address == "127.0.0.1" for address, _, _ in entries)
    return {int(outside): int(inside) for _, outside, inside in entries}


def test_services_are_pinned_and_closed_to_other_machines() -> None:
    for name, service in SERVICES.items():
        published(name)
        assert service["cap_drop"] == ["ALL"], name
        if "build" not in service:
            assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_what_is_mounted_exists_and_is_read_only() -> None:
    bound = [entry for service in SERVICES.values() for entry in service.get("volumes", ()) if entry.startswith(".")]
    assert bound and all(entry.endswith(":ro") for entry in bound)
    missing = [path for name in SERVICES for path in mounts(name).values() if not path.exists()]
    assert not missing


def test_the_image_is_built_from_the_dockerfile() -> None:
    context = (DEPLOY / SERVICES["server"]["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / SERVICES["server"]["build"].get("dockerfile", "Dockerfile")).is_file()


def test_ports_are_those_the_server_listens_on() -> None:
    settings = Settings()
    assert settings.metrics_port is None, "then /metrics is not on --port"
    assert published("server") == {settings.port: settings.port}
    assert targets() == [f"server:{settings.port}"]
    assert f"EXPOSE {settings.port}" in (ROOT / "Dockerfile").read_text()


def targets() -> list[str]:
    return [name for job in PROMETHEUS["scrape_configs"] for each in job["static_configs"] for name in each["targets"]]


def test_compose_waits_for_the_server_to_drain() -> None:
    grace = SERVICES["server"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > Settings().drain_timeout_s


def test_prometheus_accepts_its_configuration_with_the_rules(tmp_path: Path) -> None:
    """Laid out as in the container."""
    for inside, outside in mounts("prometheus").items():
        copy = tmp_path / inside.removeprefix("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if outside.is_dir() else shutil.copy)(outside, copy)
    answer = promtool("check", "config", tmp_path / "etc/prometheus/prometheus.yml")
    assert answer.returncode == 0, answer.stderr
    assert "2 rule files found" in answer.stdout
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_servers_have_the_labels_by_which_dashboards_tell_them_apart() -> None:
    (scrape,) = PROMETHEUS["scrape_configs"]
    assert all({"namespace", "pod"} <= each["labels"].keys() for each in scrape["static_configs"])


def test_grafana_finds_prometheus() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    address = urlsplit(source["url"])
    assert address.hostname in SERVICES
    assert address.port in published(address.hostname or "").values()
    assert source["isDefault"] and source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_grafana_finds_the_dashboards() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "hiar.yaml").read_text())["providers"]
    inside = mounts("grafana")
    assert inside["/etc/grafana/provisioning"].resolve() == PROVISIONING
    dashboards = inside[provider["options"]["path"]]
    titles = {json.loads(path.read_text())["title"] for path in dashboards.glob("*.json")}
    assert titles == {f"HiAR / {name}" for name in ("Viewers", "Pipeline", "Capacity", "Reliability")}
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"] and (dashboards / home.name).is_file()


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_is_kept_is_on_a_volume_that_is_declared(name: str) -> None:
    declared = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"]
    kept = [entry.split(":")[0] for entry in SERVICES[name]["volumes"] if not entry.startswith(".")]
    assert kept and set(kept) <= set(declared)
