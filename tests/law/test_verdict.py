"""Flags that are advised make it fit, and the least harmful come first."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu.sizes import REAL
from engine.engine_config import EngineConfig, Precision
from engine.forecast import assumed_site, gpu_site, host_site
from engine.law.rates import ASSUMED, cpu_start_s, gpu_costs, pass_flop
from engine.law.verdict import Site, Verdict, judge
from engine.manifest import read_manifest
from tests.law.published import WAN, wan

TINY_DECODER = REAL.decoders["tiny decoder"]
GB = 10**9


def followed(config: EngineConfig, flags: str) -> EngineConfig:
    """The settings with advised flags; raises ``KeyError`` for one that nobody knows."""
    words = shlex.split(flags)
    for flag, value in zip(words[::2], words[1::2], strict=True):
        config = CHANGES[flag](config, value)
    return config


def with_size(config: EngineConfig, size: str) -> EngineConfig:
    width, _, height = size.partition("x")
    video = replace(config.manifest.video, sizes=((int(width), int(height)),))
    return replace(config, manifest=replace(config.manifest, video=video))


CHANGES: dict[str, Callable[[EngineConfig, str], EngineConfig]] = {
    "--max-videos": lambda config, value: replace(config, max_videos=int(value)),
    "--kv-dtype": lambda config, value: replace(config, precision=Precision(kv_dtype=value)),
    "--dtype": lambda config, value: replace(config, dtype=value),
    "--text-device": lambda config, value: replace(config, text_device=value),
    "--decoder": lambda config, _: replace(config, manifest=replace(config.manifest, decoder=TINY_DECODER)),
    "--sizes": with_size,
}


def assumed(kind: str, num_devices: int = 1, **changes: object) -> Verdict:
    config = wan(num_devices, **changes)
    return judge(config, assumed_site(config, kind, None))


@pytest.mark.parametrize("kind", ASSUMED)
@pytest.mark.parametrize("num_devices", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("has_tiny", [False, True])
def test_advice_that_is_followed_fits(kind: str, num_devices: int, has_tiny: bool) -> None:
    config = wan(num_devices)
    site = assumed_site(config, kind, TINY_DECODER if has_tiny else None)
    verdict = judge(config, site)
    assert verdict.fits == (verdict.flags is None), verdict
    if verdict.flags is not None:
        assert judge(followed(config, verdict.flags), site).fits


def test_fewer_videos_are_advised_before_anything_that_is_seen() -> None:
    assert assumed("l40s").flags == "--max-videos 1"
    assert assumed("h100-80", max_videos=9).flags == "--max-videos 2"


def test_the_tiny_decoder_is_advised_only_where_the_folder_holds_it() -> None:
    config = wan()
    verdict = judge(config, assumed_site(config, "rtx4090", TINY_DECODER))
    assert verdict.flags == "--decoder tiny --kv-dtype fp8 --max-videos 1"
    assert "--decoder" not in (assumed("rtx4090").flags or "")


def test_8_bits_are_not_advised_to_gpus_without_them() -> None:
    config = wan(max_videos=9)
    flags = judge(config, assumed_site(config, "a100-80", None)).flags
    assert flags is not None and "fp8" not in flags
    ampere = gpu_site(config, [("NVIDIA A100-SXM4-40GB", 40 * GB)], None)
    assert "fp8" not in (judge(config, ampere).flags or "")


def test_a_text_encoder_that_was_sent_to_a_gpu_may_be_advised_to_the_host() -> None:
    config = wan(5, text_device="cuda:0", max_videos=1)
    site = gpu_site(config, [("NVIDIA RTX 4000 Ada", 20 * GB)] * 5, None)
    assert judge(config, site).flags == "--text-device cpu"


def test_nothing_helps_where_nothing_fits() -> None:
    config = wan()
    tiny_gpu = gpu_site(config, [("NVIDIA GeForce", 3 * GB)], None)
    verdict = judge(config, tiny_gpu)
    assert verdict.flags is None and "no flags make it fit" in verdict.sentence


def test_the_sentence_names_reason_flags_and_sizes() -> None:
    sentence = assumed("l40s").sentence
    assert sentence.startswith("cuda:0 has 47.7 GB free and its worker needs ")
    assert "these flags make it fit: --max-videos 1" in sentence and "pages 48.3" in sentence


def test_faster_gpus_are_expected_to_be_faster_and_five_stages_faster_than_four() -> None:
    assert assumed("rtx4090", 5).memory.frames_per_s < assumed("a100-80", 5).memory.frames_per_s
    assert assumed("h100-80", 4).memory.frames_per_s <= assumed("h100-80", 5).memory.frames_per_s
    costs = gpu_costs(wan(), ASSUMED["h100-80"])
    assert costs.denoise_s[3] == pytest.approx(4 * costs.denoise_s[0])


def test_operations_of_a_pass_over_a_full_window() -> None:
    """Spec section 1.5: 323 TFLOP a block of 8 passes, so 40 a pass."""
    assert 8 * sum(pass_flop(wan(), 4680, 7)) == pytest.approx(323e12, rel=0.05)


def test_a_cpu_that_could_hold_the_model_is_still_too_slow_for_full_size() -> None:
    config = replace(wan(), devices=("cpu",))
    site = replace(host_site(config), host_bytes=(400 * GB,), num_cores=2)
    verdict = judge(config, site)
    (reason,) = verdict.reasons
    assert "832x480" in reason and "2 cores" in reason and "minutes" in reason
    assert cpu_start_s(config, 64) < cpu_start_s(config, 2)
    assert verdict.flags is not None and judge(followed(config, verdict.flags), site).fits


def test_the_small_model_fits_any_laptop() -> None:
    config = EngineConfig(manifest=read_manifest(Path("models/tiny")))
    site = replace(host_site(config), host_bytes=(4 * GB,), num_cores=2)
    assert judge(config, site).fits


def test_a_site_is_judged_with_the_memory_that_is_given() -> None:
    config = wan()
    site: Site = gpu_site(config, [("NVIDIA H100 80GB HBM3", 60 * GB)], None)
    assert judge(config, site).flags == "--max-videos 1"
    assert WAN.dtype == "bfloat16"
