"""GPU readings: every one optional, and an absent driver is a fact."""

import os
from collections.abc import Sequence

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from server.gpus import VISIBLE, HiddenGpu, gpu_of
from server.metrics.gpu import GpuCollector, Gpus, NvmlPoller
from server.metrics.gpu_families import GPU_FAMILIES
from tests.server.fake_nvml import FakeNvml, NVMLError
from tests.server.live_server import eventually
from tests.server.scrape import Scrape, parse

pytestmark = pytest.mark.in_turn


BOTH = ("cuda:0", "cuda:1")


def gpus_of(nvml: FakeNvml, devices: Sequence[str] = BOTH, visible: str | None = None) -> Gpus:
    return Gpus(nvml, devices, visible)


def exposed(collector: GpuCollector) -> Scrape:
    registry = CollectorRegistry()
    registry.register(collector)
    return parse(generate_latest(registry).decode())


def read(*rounds: Gpus) -> Scrape:
    collector = GpuCollector()
    for gpus in rounds:
        collector.readings = gpus.read()
    return exposed(collector)


def test_a_gpu_that_can_do_everything() -> None:
    now = read(gpus_of(FakeNvml()))
    expected = {
        "hiar_gpu_utilization_ratio": 0.87,
        "hiar_gpu_memory_used_bytes": 60 * 2**30,
        "hiar_gpu_memory_total_bytes": 80 * 2**30,
        "hiar_gpu_power_watts": 650,
        "hiar_gpu_temperature_celsius": 61,
        "hiar_gpu_sm_clock_hertz": 1.98e9,
        "hiar_gpu_encoder_utilization_ratio": 0,
        "hiar_gpu_energy_joules_total": 5,
        "hiar_gpu_xid_errors_total": 0,
    }
    assert {name: now.value(name, gpu="0") for name in expected} == expected
    assert now.value("hiar_gpu_info", gpu="0", uuid="GPU-0", name="H100", driver="580.1") == 1
    assert now.value("hiar_gpu_ecc_errors_total", gpu="0", kind="corrected") == 7
    assert now.value("hiar_gpu_remapped_rows_total", gpu="0", kind="uncorrected") == 1
    throttled = {
        reason: now.value("hiar_gpu_throttled", gpu="0", reason=reason) for reason in ("power_cap", "hw_thermal")
    }
    assert throttled == {"power_cap": 1, "hw_thermal": 0}
    told = {name.removesuffix("_total") for name, labels in now.values if ("gpu", "0") in labels}
    assert told == {f"hiar_{family.name}" for family in GPU_FAMILIES} | {"hiar_gpu_info"}


def uuids(now: Scrape) -> dict[str, str]:
    """Of the GPUs that are told, by index."""
    named = [dict(labels) for name, labels in now.values if name == "hiar_gpu_info"]
    return {labels["gpu"]: labels["uuid"] for labels in named}


@pytest.mark.parametrize(
    ("devices", "visible", "used"),
    [
        (("cpu", "cpu"), None, set()),
        (("cuda:0",), None, {"0"}),
        (("cuda:1", "cuda:1"), None, {"1"}),
        (("cuda:0",), "1", {"1"}),
        (("cuda:0", "cuda:1"), "1,0", {"0", "1"}),
        (("cuda:0",), "GPU-1", {"1"}),
        (("cuda:0",), " gpu-1 , GPU-0", {"1"}),
        (("cuda:0", "cuda:1"), "1", {"1"}),
        (("cuda:0",), "", set()),
        (("cuda:0",), "-1", set()),
        (("cuda:0",), "GPU-7", set()),
        (("cuda:0",), "MIG-7", set()),
        (("cuda:7",), None, set()),
    ],
)
def test_only_gpus_that_the_server_uses_are_told(devices: tuple[str, ...], visible: str | None, used: set[str]) -> None:
    now = read(gpus_of(FakeNvml(), devices, visible))
    assert uuids(now) == {index: f"GPU-{index}" for index in used}


@pytest.mark.parametrize("visible", [None, "0", "GPU-0", "MIG-b"])
def test_of_a_slice_its_memory_and_what_its_gpu_tells_as_a_whole(visible: str | None) -> None:
    """Not the memory and the load of the GPU, which others use too."""
    nvml = FakeNvml()
    nvml.slices = {0: {1: "MIG-a", 4: "MIG-b"}}
    now = read(gpus_of(nvml, ("cuda:0",), visible))
    place, uuid = (4, "MIG-b") if visible == "MIG-b" else (1, "MIG-a")
    assert uuids(now) == {f"0:{place}": uuid, "0": "GPU-0"}
    assert now.value("hiar_gpu_memory_total_bytes", gpu=f"0:{place}") == 10 * 2**30
    of_all = {name for name, labels in now.values if ("gpu", "0") in labels}
    assert "hiar_gpu_power_watts" in of_all and "hiar_gpu_xid_errors_total" in of_all
    assert not of_all & {"hiar_gpu_memory_used_bytes", "hiar_gpu_memory_total_bytes", "hiar_gpu_utilization_ratio"}


def test_two_slices_of_one_gpu() -> None:
    nvml = FakeNvml()
    nvml.slices = {0: {0: "MIG-a", 1: "MIG-b"}}
    assert uuids(read(gpus_of(nvml, BOTH, "MIG-a,MIG-b"))) == {"0:0": "MIG-a", "0:1": "MIG-b", "0": "GPU-0"}


def test_a_gpu_that_is_hidden_is_named_with_what_hides_it() -> None:
    with pytest.raises(HiddenGpu, match="there is no cuda:1: CUDA_VISIBLE_DEVICES is '0'"):
        gpu_of(FakeNvml(), "cuda:1", "0")
    with pytest.raises(HiddenGpu, match="CUDA_VISIBLE_DEVICES names GPU-7, and there is no such GPU"):
        gpu_of(FakeNvml(), "cuda:0", "GPU-7")


def test_what_a_gpu_does_not_support_is_left_out() -> None:
    now = read(gpus_of(FakeNvml()))
    told = {name for name, labels in now.values if ("gpu", "1") in labels}
    memory = {"hiar_gpu_memory_used_bytes", "hiar_gpu_memory_total_bytes"}
    assert told == {"hiar_gpu_info", "hiar_gpu_utilization_ratio"} | memory


def test_a_gpu_that_falls_off_says_nothing_and_the_other_goes_on() -> None:
    nvml = FakeNvml()
    gpus = gpus_of(nvml)
    gpus.read()
    nvml.fallen_off.add(0)
    now = read(gpus)
    assert now.value("hiar_gpu_utilization_ratio", gpu="1") == 0.03
    told = {name for name, labels in now.values if ("gpu", "0") in labels}
    assert told == {"hiar_gpu_info", "hiar_gpu_xid_errors_total"}  # what was counted here stays


def test_driver_errors_are_counted() -> None:
    nvml = FakeNvml()
    gpus = gpus_of(nvml)
    nvml.xids = [(0, 79), (0, 48)]
    assert read(gpus).value("hiar_gpu_xid_errors_total", gpu="0") == 2
    nvml.xids = [(0, 79)]
    assert read(gpus).value("hiar_gpu_xid_errors_total", gpu="0") == 3


def test_the_poller_reads_in_its_thread_and_stops() -> None:
    collector = GpuCollector()
    poller = NvmlPoller(FakeNvml(), collector, BOTH, None)
    poller.start()
    eventually(lambda: bool(collector.readings))
    poller.stop()
    poller.join(5)
    assert not poller.is_alive() and exposed(collector).value("hiar_nvml_available") == 1


@pytest.mark.parametrize("reason", ["library not found", "driver not loaded", "no permission"])
def test_without_nvml_there_are_families_and_no_readings(reason: str) -> None:
    nvml, collector = FakeNvml(), GpuCollector()
    nvml.absent = NVMLError(reason)
    NvmlPoller(nvml, collector, BOTH, None).run()
    now = exposed(collector)
    assert now.values == {("hiar_nvml_available", frozenset()): 0}
    assert len(now.kinds) == 2 + len(GPU_FAMILIES)


def test_the_real_library_on_this_machine() -> None:
    """With or without a driver: no error, and the truth about it."""
    try:
        pynvml.nvmlInit()
        there = True
    except pynvml.NVMLError:
        there = False
    collector = GpuCollector()
    poller = NvmlPoller(pynvml, collector, ("cuda:0",), os.environ.get(VISIBLE))
    poller.start()
    if there:
        eventually(lambda: bool(collector.readings))
        assert all(gpu.uuid.startswith(("GPU-", "MIG-")) and gpu.values for gpu in collector.readings)
    poller.stop()
    poller.join(10)
    assert not poller.is_alive() and collector.is_available is there


def test_every_function_and_constant_of_the_fake_is_real() -> None:
    ours = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(ours) > 25 and [name for name in ours if not hasattr(pynvml, name)] == []
    for name in ("NVML_TEMPERATURE_GPU", "NVML_CLOCK_SM", "NVML_AGGREGATE_ECC", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"):
        assert getattr(FakeNvml, name) == getattr(pynvml, name)
