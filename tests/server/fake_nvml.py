"""The part of ``pynvml`` that we call, for two GPUs of which the second can do little. No other fake stands for it."""

from types import SimpleNamespace
from typing import Any

import pynvml


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class Timeout(NVMLError):
    pass


class FakeNvml:
    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = pynvml.NVMLError_DriverNotLoaded
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_AGGREGATE_ECC = 0, 1, 1
    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
    nvmlClocksEventReasonSwPowerCap = 0x4
    nvmlClocksEventReasonHwSlowdown = 0x8
    nvmlClocksEventReasonSwThermalSlowdown = 0x20
    nvmlClocksEventReasonHwThermalSlowdown = 0x40
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80
    nvmlEventTypeXidCriticalError = 8

    def __init__(self) -> None:
        self.absent: Exception | None = None
        self.fallen_off: set[int] = set()
        """GPUs that answer nothing any more."""
        self.xids: list[tuple[int, int]] = []
        self.energy_mj = 5_000
        self.count = 2
        self.is_cut = False
        """Whether the first is cut into instances."""

    def nvmlInit(self) -> None:
        if self.absent is not None:
            raise self.absent

    def nvmlShutdown(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.1"

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetIndex(self, gpu: int) -> int:
        return gpu

    def nvmlDeviceGetMigMode(self, gpu: int) -> list[int]:
        return self._of(gpu, [int(self.is_cut), 0])

    def nvmlDeviceGetUUID(self, gpu: int) -> str:
        return self._of(gpu, f"GPU-{gpu}", f"GPU-{gpu}")

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return self._of(gpu, "H100", "Small")

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=self._of(gpu, 87, 3))

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=self._of(gpu, 60 * 2**30, 2**30), total=80 * 2**30)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return self._of(gpu, 650_000)

    def nvmlDeviceGetTemperature(self, gpu: int, _sensor: int) -> int:
        return self._of(gpu, 61)

    def nvmlDeviceGetClockInfo(self, gpu: int, _clock: int) -> int:
        return self._of(gpu, 1_980)

    def nvmlDeviceGetEncoderUtilization(self, gpu: int) -> list[int]:
        return [self._of(gpu, 0), 1000]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        return self._of(gpu, self.energy_mj)

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: int) -> int:
        return self._of(gpu, 0x4 | 0x1)

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, kind: int, _counter: int) -> int:
        return self._of(gpu, 7 if kind == 0 else 0)

    def nvmlDeviceGetRemappedRows(self, gpu: int) -> tuple[int, int, int, int]:
        return (self._of(gpu, 2), 1, 0, 0)

    def nvmlEventSetCreate(self) -> str:
        return "events"

    def nvmlDeviceRegisterEvents(self, gpu: int, _kind: int, _events: str) -> None:
        self._of(gpu, None)

    def nvmlEventSetWait_v2(self, _events: str, timeout_ms: int) -> Any:
        assert timeout_ms == 0
        if not self.xids:
            raise Timeout
        gpu, xid = self.xids.pop(0)
        return SimpleNamespace(device=gpu, eventData=xid)

    def _of(self, gpu: int, first: Any, second: Any = NotSupported) -> Any:
        """What a GPU says; by default the second does not support it."""
        if gpu in self.fallen_off:
            raise NVMLError("GPU is lost")
        if gpu == 1 and second is NotSupported:
            raise NotSupported
        return first if gpu == 0 else second
