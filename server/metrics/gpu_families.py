"""The families of GPU readings, by NVML. Which are there depends on the machine: a reading a GPU lacks has no child.

Of the GPUs that the server uses. ``gpu`` is the index that NVML gives the device inside this container, of a slice with
the slice's own behind it; ``hiar_gpu_info`` joins it with other exporters by UUID. Totals but that of XIDs are the
device's own, from before the server started. Knows no driver.
"""

from dataclasses import dataclass

NVML_AVAILABLE = "nvml_available"
"""1 if readings can be had, 0 if there is no driver or no library: a fact, not an error."""
GPU_INFO = "gpu_info"
"""Labels gpu, uuid, name, driver; always 1."""


@dataclass(frozen=True, kw_only=True)
class GpuFamily:
    """One family with label ``gpu``, and one more if ``label`` names it. A total's name is exposed with ``_total``."""

    name: str
    meaning: str
    is_total: bool = False
    label: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""
        return ("gpu",) if self.label is None else ("gpu", self.label)


GPU_FAMILIES = (
    GpuFamily(name="gpu_utilization_ratio", meaning="Part of the time that a kernel ran, 0-1."),
    GpuFamily(name="gpu_memory_used_bytes", meaning="Memory in use by all processes."),
    GpuFamily(name="gpu_memory_total_bytes", meaning="Memory of the device."),
    GpuFamily(name="gpu_power_watts", meaning="Power drawn."),
    GpuFamily(name="gpu_temperature_celsius", meaning="Temperature of the chip."),
    GpuFamily(name="gpu_sm_clock_hertz", meaning="Clock of the multiprocessors."),
    GpuFamily(name="gpu_encoder_utilization_ratio", meaning="Part of the time that the video encoder ran, 0-1."),
    GpuFamily(
        name="gpu_throttled",
        meaning="1 while the clock is held down: power_cap, hw_slowdown, sw_thermal, hw_thermal, hw_power_brake.",
        label="reason",
    ),
    GpuFamily(name="gpu_energy_joules", meaning="Energy used.", is_total=True),
    GpuFamily(
        name="gpu_ecc_errors",
        meaning="Memory errors over the device's life: corrected, uncorrected.",
        is_total=True,
        label="kind",
    ),
    GpuFamily(
        name="gpu_remapped_rows",
        meaning="Memory rows replaced for corrected or uncorrected errors.",
        is_total=True,
        label="kind",
    ),
    GpuFamily(name="gpu_xid_errors", meaning="Critical driver errors (XID) since the server started.", is_total=True),
)
