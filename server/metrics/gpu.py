"""Readings of the GPUs that the server uses, by NVML, in a thread of its own: a call can block for a tenth of a second.

Everything is optional. No library or driver means no readings; a reading that a GPU does not have, or that fails for
once, is left out of that round. The module is passed in, as ``pynvml`` offers it. Knows no engine.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.gpus import Gpu, gpus_of, text_of
from server.metrics.families import PREFIX
from server.metrics.gpu_families import GPU_FAMILIES, GPU_INFO, NVML_AVAILABLE, GpuFamily

logger = logging.getLogger(__name__)

POLL_EVERY_S = 5.0

Value = tuple[str, str | None, float]
"""Family, value of its second label, reading."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """One GPU, or slice of one, at one moment."""

    gpu: str
    """Its index."""
    uuid: str
    name: str
    driver: str
    values: tuple[Value, ...]


class GpuCollector(Collector):
    """Exposes the last readings. Another thread replaces them as a whole."""

    def __init__(self) -> None:
        self.is_available = False
        self.readings: tuple[GpuReading, ...] = ()

    def collect(self) -> Iterable[Metric]:
        """All families, also those without a reading."""
        readings = self.readings
        available = GaugeMetricFamily(f"{PREFIX}_{NVML_AVAILABLE}", "1 if NVML gives GPU readings, 0 if there is none.")
        available.add_metric([], float(self.is_available))
        yield available
        info = GaugeMetricFamily(
            f"{PREFIX}_{GPU_INFO}", "Which GPU an index is, always 1.", labels=("gpu", "uuid", "name", "driver")
        )
        for gpu in readings:
            info.add_metric([gpu.gpu, gpu.uuid, gpu.name, gpu.driver], 1.0)
        yield info
        for family in GPU_FAMILIES:
            yield _metric(family, readings)


def _metric(family: GpuFamily, readings: tuple[GpuReading, ...]) -> Metric:
    kind = CounterMetricFamily if family.is_total else GaugeMetricFamily
    metric = kind(f"{PREFIX}_{family.name}", family.meaning, labels=family.labels)
    for gpu in readings:
        for name, label, value in gpu.values:
            if name == family.name:
                metric.add_metric([gpu.gpu, *([label] if label is not None else [])], value)
    return metric


class NvmlPoller(threading.Thread):
    """Reads the GPUs every few seconds until told to stop."""

    def __init__(self, nvml: Any, collector: GpuCollector, devices: Sequence[str], visible: str | None) -> None:
        """``nvml`` is the module ``pynvml``; ``visible`` is what CUDA_VISIBLE_DEVICES says."""
        super().__init__(name="nvml", daemon=True)
        self._nvml, self._collector = nvml, collector
        self._devices, self._visible = devices, visible
        self._level = logging.INFO if any(name.startswith("cuda") for name in devices) else logging.DEBUG
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop before the next round."""
        self._stopping.set()

    def run(self) -> None:
        """Read until stopped, or not at all where there is no NVML."""
        try:
            gpus = Gpus(self._nvml, self._devices, self._visible)
        except self._nvml.NVMLError as error:
            logger.log(self._level, "no GPU readings: %s", error)
            return
        self._collector.is_available = True
        while not self._stopping.is_set():
            self._collector.readings = gpus.read()
            self._stopping.wait(POLL_EVERY_S)


class Gpus:
    """The GPUs that devices are, read through NVML.

    Of a slice, what is its own is told as of the slice, such as memory; the rest as of its GPU.
    """

    def __init__(self, nvml: Any, devices: Sequence[str], visible: str | None) -> None:
        """Raises ``nvml.NVMLError`` without a library, a driver or the right to use them."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._driver = text_of(nvml.nvmlSystemGetDriverVersion())
        used = gpus_of(nvml, devices, visible)
        self._gpus = {gpu.name: gpu for one in used for gpu in (one, one.parent) if gpu is not None}
        self._cut = {one.parent.name for one in used if one.parent is not None}
        self._identities = {name: self._identity(gpu) for name, gpu in self._gpus.items()}
        shared = tuple(_readers(nvml))
        self._readers_of_cut, self._readers = shared, (*_readers_of_own(nvml), *shared)
        self._xids = _XidEvents(nvml, self._gpus)

    def read(self) -> tuple[GpuReading, ...]:
        """Everything that can be read now."""
        self._xids.drain()
        return tuple(self._read(gpu) for gpu in self._gpus.values())

    def _read(self, gpu: Gpu) -> GpuReading:
        values: list[Value] = []
        for read in self._readers_of_cut if gpu.name in self._cut else self._readers:
            values += self._try(read, gpu.handle) or []
        if gpu.name in self._xids.counts:
            values.append(("gpu_xid_errors", None, self._xids.counts[gpu.name]))
        uuid, name = self._identities[gpu.name]
        return GpuReading(gpu=gpu.name, uuid=uuid, name=name, driver=self._driver, values=tuple(values))

    def _identity(self, gpu: Gpu) -> tuple[str, str]:
        """UUID and name, which stay."""
        uuid = self._try(self._nvml.nvmlDeviceGetUUID, gpu.handle)
        name = self._try(self._nvml.nvmlDeviceGetName, gpu.handle)
        return text_of(uuid or ""), text_of(name or "")

    def _try(self, read: Callable[[Any], Any], handle: Any) -> Any:
        """A reading, or None if this GPU, this driver or this container does not give it."""
        try:
            return read(handle)
        except self._nvml.NVMLError:
            return None


Read = Callable[[Any], list[Value]]
"""Asks the driver once. Raises ``nvml.NVMLError`` for what is not supported."""


def _one(name: str, read: Callable[[Any], float]) -> Read:
    return lambda handle: [(name, None, float(read(handle)))]


def _readers_of_own(nvml: Any) -> Iterator[Read]:
    """What a slice has of its own; of its GPU it would tell what others use."""

    def memory(gpu: Any) -> list[Value]:
        found = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return [("gpu_memory_used_bytes", None, found.used), ("gpu_memory_total_bytes", None, found.total)]

    yield _one("gpu_utilization_ratio", lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
    yield memory


def _readers(nvml: Any) -> Iterator[Read]:
    """What a GPU tells as a whole."""
    yield _one("gpu_power_watts", lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
    yield _one("gpu_temperature_celsius", lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
    yield _one("gpu_sm_clock_hertz", lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6)
    yield _one("gpu_encoder_utilization_ratio", lambda gpu: nvml.nvmlDeviceGetEncoderUtilization(gpu)[0] / 100)
    yield _one("gpu_energy_joules", lambda gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)

    def throttled(gpu: Any) -> list[Value]:
        mask = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
        bits = {
            "power_cap": nvml.nvmlClocksEventReasonSwPowerCap,
            "hw_slowdown": nvml.nvmlClocksEventReasonHwSlowdown,
            "sw_thermal": nvml.nvmlClocksEventReasonSwThermalSlowdown,
            "hw_thermal": nvml.nvmlClocksEventReasonHwThermalSlowdown,
            "hw_power_brake": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
        }
        return [("gpu_throttled", reason, float(bool(mask & bit))) for reason, bit in bits.items()]

    def ecc_errors(gpu: Any) -> list[Value]:
        kinds = {
            "corrected": nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
            "uncorrected": nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        }
        count, lifetime = nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_AGGREGATE_ECC
        return [("gpu_ecc_errors", kind, float(count(gpu, number, lifetime))) for kind, number in kinds.items()]

    def remapped_rows(gpu: Any) -> list[Value]:
        corrected, uncorrected, _, _ = nvml.nvmlDeviceGetRemappedRows(gpu)
        rows = {"corrected": corrected, "uncorrected": uncorrected}
        return [("gpu_remapped_rows", kind, float(count)) for kind, count in rows.items()]

    yield from (throttled, ecc_errors, remapped_rows)


class _XidEvents:
    """Counts critical driver errors of the GPUs whose driver reports them."""

    def __init__(self, nvml: Any, gpus: Mapping[str, Gpu]) -> None:
        self._nvml = nvml
        self.counts: dict[str, float] = {}
        """By index, since the start; a GPU that reports none is absent."""
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        for name, gpu in gpus.items():
            try:
                nvml.nvmlDeviceRegisterEvents(gpu.handle, nvml.nvmlEventTypeXidCriticalError, self._events)
            except nvml.NVMLError:
                continue
            self.counts[name] = 0.0

    def drain(self) -> None:
        """Count what came since the last call."""
        while self.counts:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
                name = str(self._nvml.nvmlDeviceGetIndex(event.device))
            except self._nvml.NVMLError:
                return  # a timeout: nothing has come
            logger.error("GPU %s reports XID %d", name, event.eventData)
            self.counts[name] = self.counts.get(name, 0.0) + 1
