"""GPU readings by NVML, taken by a thread of its own: a call can block for a tenth of a second.

Everything is optional. No library or driver means no readings; a reading that a GPU does not have, or that fails for
once, is left out of that round. The module is passed in, as ``pynvml`` offers it. Knows no engine.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.metrics.families import PREFIX
from server.metrics.gpu_families import GPU_FAMILIES, GPU_INFO, NVML_AVAILABLE, GpuFamily

logger = logging.getLogger(__name__)

POLL_EVERY_S = 5.0

Value = tuple[str, str | None, float]
"""Family, value of its second label, reading."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """One GPU at one moment."""

    index: int
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
            info.add_metric([str(gpu.index), gpu.uuid, gpu.name, gpu.driver], 1.0)
        yield info
        for family in GPU_FAMILIES:
            yield _metric(family, readings)


def _metric(family: GpuFamily, readings: tuple[GpuReading, ...]) -> Metric:
    kind = CounterMetricFamily if family.is_total else GaugeMetricFamily
    metric = kind(f"{PREFIX}_{family.name}", family.meaning, labels=family.labels)
    for gpu in readings:
        for name, label, value in gpu.values:
            if name == family.name:
                metric.add_metric([str(gpu.index), *([label] if label is not None else [])], value)
    return metric


class NvmlPoller(threading.Thread):
    """Reads all GPUs every few seconds until told to stop."""

    def __init__(self, nvml: Any, collector: GpuCollector, *, is_expected: bool = True) -> None:
        """``nvml`` is the module ``pynvml``. ``is_expected``: whether to tell of it if there is no NVML."""
        super().__init__(name="nvml", daemon=True)
        self._nvml, self._collector = nvml, collector
        self._level = logging.INFO if is_expected else logging.DEBUG
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop before the next round."""
        self._stopping.set()

    def run(self) -> None:
        """Read until stopped, or not at all where there is no NVML."""
        try:
            gpus = Gpus(self._nvml)
        except self._nvml.NVMLError as error:
            logger.log(self._level, "no GPU readings: %s", error)
            return
        self._collector.is_available = True
        while not self._stopping.is_set():
            self._collector.readings = gpus.read()
            self._stopping.wait(POLL_EVERY_S)


class Gpus:
    """The GPUs of this container, read through NVML."""

    def __init__(self, nvml: Any) -> None:
        """Raises ``nvml.NVMLError`` without a library, a driver or the right to use them."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._driver = _text(nvml.nvmlSystemGetDriverVersion())
        self._handles = {index: nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())}
        self._names = {index: self._identity(handle) for index, handle in self._handles.items()}
        self._readers = tuple(_readers(nvml))
        self._xids = _XidEvents(nvml, self._handles)

    def read(self) -> tuple[GpuReading, ...]:
        """Everything that can be read now."""
        self._xids.drain()
        return tuple(self._read(index, handle) for index, handle in self._handles.items())

    def _read(self, index: int, handle: Any) -> GpuReading:
        values: list[Value] = []
        for read in self._readers:
            values += self._try(read, handle) or []
        if index in self._xids.counts:
            values.append(("gpu_xid_errors", None, self._xids.counts[index]))
        uuid, name = self._names[index]
        return GpuReading(index=index, uuid=uuid, name=name, driver=self._driver, values=tuple(values))

    def _identity(self, handle: Any) -> tuple[str, str]:
        """UUID and name, which stay."""
        uuid = self._try(self._nvml.nvmlDeviceGetUUID, handle)
        name = self._try(self._nvml.nvmlDeviceGetName, handle)
        return _text(uuid or ""), _text(name or "")

    def _try(self, read: Callable[[Any], Any], handle: Any) -> Any:
        """A reading, or None if this GPU, this driver or this container does not give it."""
        try:
            return read(handle)
        except self._nvml.NVMLError:
            return None


def _readers(nvml: Any) -> Iterator[Callable[[Any], list[Value]]]:
    """Each asks the driver once. Raise ``nvml.NVMLError`` for what is not supported."""

    def one(name: str, read: Callable[[Any], float]) -> Callable[[Any], list[Value]]:
        return lambda handle: [(name, None, float(read(handle)))]

    yield one("gpu_utilization_ratio", lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
    yield one("gpu_power_watts", lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
    yield one("gpu_temperature_celsius", lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
    yield one("gpu_sm_clock_hertz", lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6)
    yield one("gpu_encoder_utilization_ratio", lambda gpu: nvml.nvmlDeviceGetEncoderUtilization(gpu)[0] / 100)
    yield one("gpu_energy_joules", lambda gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000)

    def memory(gpu: Any) -> list[Value]:
        found = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return [("gpu_memory_used_bytes", None, found.used), ("gpu_memory_total_bytes", None, found.total)]

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

    yield from (memory, throttled, ecc_errors, remapped_rows)


class _XidEvents:
    """Counts critical driver errors of the GPUs whose driver reports them."""

    def __init__(self, nvml: Any, handles: dict[int, Any]) -> None:
        self._nvml = nvml
        self.counts: dict[int, float] = {}
        """By index, since the start; a GPU that reports none is absent."""
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        for index, handle in handles.items():
            try:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._events)
            except nvml.NVMLError:
                continue
            self.counts[index] = 0.0

    def drain(self) -> None:
        """Count what came since the last call."""
        while self.counts:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
                index = self._nvml.nvmlDeviceGetIndex(event.device)
            except self._nvml.NVMLError:
                return  # a timeout: nothing has come
            logger.error("GPU %d reports XID %d", index, event.eventData)
            self.counts[index] = self.counts.get(index, 0.0) + 1


def _text(value: str | bytes) -> str:
    """Drivers' strings came as bytes from older bindings."""
    return value.decode() if isinstance(value, bytes) else value
