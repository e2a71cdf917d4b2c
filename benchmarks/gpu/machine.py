"""What was measured on: the device, its driver and its clocks, as far as they can be read."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

_SMI_FIELDS = {
    "driver": "driver_version",
    "SM clock": "clocks.sm",
    "SM clock at most": "clocks.max.sm",
    "memory clock": "clocks.mem",
    "power limit": "power.limit",
    "temperature in C": "temperature.gpu",
}


def describe(device: torch.device) -> dict[str, str]:
    """Names and versions, by what they are."""
    facts = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    try:
        facts["triton"] = version("triton")
    except PackageNotFoundError:
        facts["triton"] = "absent"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["multiprocessors"] = str(properties.multi_processor_count)
        facts["memory"] = f"{properties.total_memory / 2**30:.1f} GiB"
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())
    return facts | read_smi(device)


def read_smi(device: torch.device) -> dict[str, str]:
    """What ``nvidia-smi`` says now of the device; nothing where there is no such program."""
    if device.type != "cuda":
        return {}
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = f"GPU-{uuid}" if uuid else str(device.index or 0)
    command = ["nvidia-smi", f"--id={which}", f"--query-gpu={','.join(_SMI_FIELDS.values())}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    values = answer.splitlines()[0].split(", ") if answer.strip() else []
    return dict(zip(_SMI_FIELDS, values, strict=False))


def device_name(device: torch.device) -> str:
    """What people call the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def slug(name: str) -> str:
    """A device's name as part of a file's: ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
