"""What a plan is made for before anything starts: GPUs that are named, or that are there, or this host's CPUs.

The answer is ``engine.law.verdict``'s. Loads no torch and asks no driver: what GPUs have free comes in as numbers.
"""

from collections.abc import Sequence
from dataclasses import replace

from engine.config import DecoderConfig
from engine.engine_config import EngineConfig
from engine.law.advice import Choices
from engine.law.fitting import Device
from engine.law.rates import ASSUMED, assumed_like, cpu_costs, gpu_costs
from engine.law.verdict import Site
from engine.machine import free_host_bytes, usable_cores

FP8_CAPABILITY = (8, 9)


def assumed_site(config: EngineConfig, kind: str, tiny_decoder: DecoderConfig | None) -> Site:
    """GPUs of a kind in ``ASSUMED``, one for each device of the config; their host has memory enough."""
    assumed = ASSUMED[kind]
    return Site(
        devices=tuple(Device(name=name, kind=kind, free_bytes=assumed.memory_bytes) for name in config.devices),
        host_bytes=(None,),
        costs=lambda trial: gpu_costs(trial, assumed),
        measures=True,
        choices=_choices(tiny_decoder, fp8_pages=assumed.capability >= FP8_CAPABILITY, host_text=True),
    )


def gpu_site(config: EngineConfig, gpus: Sequence[tuple[str, int]], tiny_decoder: DecoderConfig | None) -> Site:
    """GPUs of this host: name and free bytes of each device of the config."""
    slowest = min((assumed_like(kind) for kind, _ in gpus), key=lambda one: one.attention_flops)
    return replace(
        assumed_site(config, "h100-80", tiny_decoder),
        devices=tuple(
            Device(name=name, kind=kind, free_bytes=free_bytes)
            for name, (kind, free_bytes) in zip(config.devices, gpus, strict=True)
        ),
        host_bytes=(free_host_bytes(),),
        costs=lambda trial: gpu_costs(trial, slowest),
        choices=_choices(
            tiny_decoder,
            fp8_pages=all(assumed_like(kind).capability >= FP8_CAPABILITY for kind, _ in gpus),
            host_text=True,
        ),
    )


def host_site(config: EngineConfig, tiny_decoder: DecoderConfig | None = None) -> Site:
    """This host's CPUs."""
    free_bytes, num_cores = free_host_bytes(), usable_cores()
    return Site(
        devices=tuple(Device(name=name, kind="cpu", free_bytes=free_bytes) for name in config.devices),
        host_bytes=(free_bytes,),
        costs=lambda trial: cpu_costs(trial, num_cores),
        num_cores=num_cores,
        choices=_choices(tiny_decoder, fp8_pages=True, host_text=False),
    )


def _choices(tiny_decoder: DecoderConfig | None, *, fp8_pages: bool, host_text: bool) -> Choices:
    return Choices(tiny_decoder=tiny_decoder, fp8_pages=fp8_pages, host_text=host_text)
