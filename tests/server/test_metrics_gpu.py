"""GPU readings: every one optional, and an absent driver is a fact."""

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from server.metrics.gpu import GpuCollector, Gpus, NvmlPoller
from server.metrics.gpu_families import GPU_FAMILIES
from tests.server.fake_nvml import FakeNvml, NVMLError
from tests.server.live_server import eventually
from tests.server.scrape import Scrape, parse

pytestmark = pytest.mark.in_turn


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
    now = read(Gpus(FakeNvml()))
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


def test_what_a_gpu_does_not_support_is_left_out() -> None:
    now = read(Gpus(FakeNvml()))
    told = {name for name, labels in now.values if ("gpu", "1") in labels}
    memory = {"hiar_gpu_memory_used_bytes", "hiar_gpu_memory_total_bytes"}
    assert told == {"hiar_gpu_info", "hiar_gpu_utilization_ratio"} | memory


def test_a_gpu_that_falls_off_says_nothing_and_the_other_goes_on() -> None:
    nvml = FakeNvml()
    gpus = Gpus(nvml)
    gpus.read()
    nvml.fallen_off.add(0)
    now = read(gpus)
    assert now.value("hiar_gpu_utilization_ratio", gpu="1") == 0.03
    told = {name for name, labels in now.values if ("gpu", "0") in labels}
    assert told == {"hiar_gpu_info", "hiar_gpu_xid_errors_total"}  # what was counted here stays


def test_driver_errors_are_counted() -> None:
    nvml = FakeNvml()
    gpus = Gpus(nvml)
    nvml.xids = [(0, 79), (0, 48)]
    assert read(gpus).value("hiar_gpu_xid_errors_total", gpu="0") == 2
    nvml.xids = [(0, 79)]
    assert read(gpus).value("hiar_gpu_xid_errors_total", gpu="0") == 3


def test_the_poller_reads_in_its_thread_and_stops() -> None:
    collector = GpuCollector()
    poller = NvmlPoller(FakeNvml(), collector)
    poller.start()
    eventually(lambda: bool(collector.readings))
    poller.stop()
    poller.join(5)
    assert not poller.is_alive() and exposed(collector).value("hiar_nvml_available") == 1


@pytest.mark.parametrize("reason", ["library not found", "driver not loaded", "no permission"])
def test_without_nvml_there_are_families_and_no_readings(reason: str) -> None:
    nvml, collector = FakeNvml(), GpuCollector()
    nvml.absent = NVMLError(reason)
    NvmlPoller(nvml, collector).run()
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
    poller = NvmlPoller(pynvml, collector)
    poller.start()
    if there:
        eventually(lambda: bool(collector.readings))
        assert all(gpu.uuid.startswith("GPU-") and gpu.values for gpu in collector.readings)
    poller.stop()
    poller.join(10)
    assert not poller.is_alive() and collector.is_available is there


def test_every_function_and_constant_of_the_fake_is_real() -> None:
    ours = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(ours) > 25 and [name for name in ours if not hasattr(pynvml, name)] == []
    for name in ("NVML_TEMPERATURE_GPU", "NVML_CLOCK_SM", "NVML_AGGREGATE_ECC", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"):
        assert getattr(FakeNvml, name) == getattr(pynvml, name)
