"""Engines with fewer bits: what fits into memory, how near the latents stay, and what is refused at the start."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.config import TransformerConfig
from engine.engine_config import EngineConfig, Keep, Precision
from engine.errors import StartError
from engine.front.log import BlockLog, MemoryStore
from engine.manifest import read_manifest
from engine.messages import LatentsSaved
from engine.model.capture import Captures
from engine.model.dit import CausalWan
from engine.model.fp8_linear import Fp8Linear
from engine.model.graphs import GraphedWan
from engine.model.tensor_bytes import to_bytes
from engine.stage import build
from engine.stage.precision import objection
from engine.stage.progress import Progress
from kernels.attention.int8 import paged_attention_int8
from kernels.numbers import FP8
from tests.stage import micro

CPU = torch.device("cpu")
TINY = read_manifest(Path("models/tiny"))
WIDE = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=4096, text_len=512)
NUM_BLOCKS = 8
BOUNDS = {
    "fp8 pages": 3e-3,
    "fp8 linears": 1.2e-2,
    "int8 attention": 7e-4,
    "all": 1.3e-2,
}
"""Relative error of any block; twice what is seen. Random weights of this size make attention a small part."""
OPTIONS = {
    "fp8 pages": Precision(kv_dtype="fp8"),
    "fp8 linears": Precision(linear_dtype="fp8"),
    "int8 attention": Precision(attention_dtype="int8"),
    "all": Precision(kv_dtype="fp8", linear_dtype="fp8", attention_dtype="int8"),
}
every_option = pytest.mark.parametrize("name", OPTIONS)


def network(precision: Precision) -> CausalWan:
    model = micro.model(num_layers=3)
    if precision.fp8_linears:
        model.use_fp8_linears()
    if precision.int8_attention:
        model.attention = paged_attention_int8
    return model


def bench(precision: Precision, *, max_segments: int = 2) -> micro.Bench:
    page_dtype = FP8 if precision.fp8_pages else torch.float32
    return micro.Bench(
        micro.rollout(), num_layers=3, max_segments=max_segments, page_dtype=page_dtype, network=network(precision)
    )


def generate(running: micro.Bench, *, save: bool = False) -> list[Tensor]:
    running.open("a")
    for block in range(NUM_BLOCKS):
        running.block("a", block, save=save)
    running.run()
    return [running.latents["a", block] for block in range(NUM_BLOCKS)]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@every_option
def test_latents_stay_near_those_without_the_option(name: str) -> None:
    exact, found = (generate(bench(precision)) for precision in (Precision(), OPTIONS[name]))
    errors = [error(*pair) for pair in zip(found, exact, strict=True)]
    assert errors[-1] > 1e-4 and max(errors) < BOUNDS[name], errors


@every_option
def test_fused_and_separate_forwards_agree(name: str) -> None:
    """A page is rounded before anyone attends to it, also by a pass of the same forward."""
    alone, fused = (generate(bench(OPTIONS[name], max_segments=count)) for count in (1, 8))
    assert max(error(*pair) for pair in zip(fused, alone, strict=True)) < 2e-4


def test_a_restored_video_goes_on_over_pages_in_8_bits() -> None:
    precision, config = OPTIONS["all"], micro.rollout()
    first = bench(precision, max_segments=1)
    expected = generate(first, save=True)
    log = BlockLog("b", config, Keep(), MemoryStore())
    log.set_prompt(0, "x", to_bytes(micro.embedding(1)))
    for told in first.told:
        assert isinstance(told, LatentsSaved)
        if told.block < NUM_BLOCKS - 1:
            log.save(told)
    restored = bench(precision, max_segments=1)
    restored.open("b")
    for ticket in log.restoring_tickets(NUM_BLOCKS - 1):
        restored.runner.submit(ticket)
    restored.block("b", NUM_BLOCKS - 1)
    restored.run()
    assert error(restored.latents["b", NUM_BLOCKS - 1], expected[-1]) < 0.2
    restored.close("b")
    restored.run()
    assert restored.pool.num_used == 0


@torch.inference_mode()
def test_replayed_forwards_use_the_option_too() -> None:
    """The buffers of a captured forward never move; scales lie in the pool, which does not either."""
    precision = OPTIONS["all"]
    model = network(precision)
    graphed = GraphedWan(model, window_pages=2, max_segments=4, captures=Captures(lambda forward: forward))
    exact, replayed = bench(precision), bench(precision)
    graphed.attention = replace(graphed.attention, full=paged_attention_int8, growing=paged_attention_int8)
    replayed.runner._model = graphed
    for one, other in zip(generate(replayed), generate(exact), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_only_the_middle_layers_are_narrowed() -> None:
    model = network(OPTIONS["fp8 linears"])
    narrow = {name for name, module in model.named_modules() if isinstance(module, Fp8Linear)}
    attention = {f"blocks.1.self_attn.{part}" for part in "qkv"}
    assert narrow == attention | {"blocks.1.ffn.0", "blocks.1.ffn.2"}
    assert isinstance(model.blocks[1].get_submodule("self_attn.o"), nn.Linear)


def test_a_narrow_layer_takes_half_the_memory() -> None:
    linear = nn.Linear(1536, 1536, dtype=torch.bfloat16)
    narrow = Fp8Linear(linear)
    before = sum(parameter.nbytes for parameter in linear.parameters())
    after = sum(buffer.nbytes for buffer in narrow.buffers())
    assert before / after == pytest.approx(2, rel=0.01) and not list(narrow.parameters())


def test_the_same_memory_holds_more_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, which a CPU computes with, pages are 3.7 times as large as in 8 bits; of bfloat16, 1.9 times."""
    wide = EngineConfig(manifest=TINY, max_videos=2)
    stages = tuple(range(TINY.rollout.num_stages))
    pool = build.pages(wide, CPU, stages)
    monkeypatch.setattr(build, "free_bytes", lambda device: pool.num_pages * pool.page_bytes)
    assert build.pages(wide, CPU, stages).num_pages == pool.num_pages
    with pytest.raises(StartError, match="lower --max-videos"):
        build.pages(replace(wide, max_videos=3), CPU, stages)
    narrow = replace(wide, max_videos=7, precision=Precision(kv_dtype="fp8"))
    assert build.pages(narrow, CPU, stages).num_pages == pool.num_pages * 7 // 2


def test_a_cpu_loads_a_model_with_all_options() -> None:
    config = EngineConfig(manifest=TINY, precision=OPTIONS["all"])
    model = build.transformer(config, CPU, Progress(print))
    assert build.attention_name(model) == "torch-int8" and build.page_dtype(config, CPU) == FP8
    assert sum(isinstance(module, Fp8Linear) for module in model.modules()) == 5 * (TINY.transformer.num_layers - 2)


@pytest.mark.parametrize("name", ["kv_dtype", "linear_dtype", "attention_dtype"])
def test_an_unknown_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='int4' is neither 'auto' nor"):
        Precision(**{name: "int4"})


def test_two_layers_have_no_middle() -> None:
    manifest = replace(TINY, transformer=replace(TINY.transformer, num_layers=2))
    with pytest.raises(StartError, match="--linear-dtype fp8 keeps the first and the last layer"):
        build.transformer(EngineConfig(manifest=manifest, precision=OPTIONS["fp8 linears"]), CPU, Progress(print))


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "has_triton", "sentence"),
    [
        ("fp8 pages", (8, 0), torch.bfloat16, True, "--kv-dtype fp8 needs a GPU of compute capability 8.9 or later"),
        ("fp8 linears", (8, 6), torch.bfloat16, True, "--linear-dtype fp8 needs a GPU of compute capability 8.9"),
        ("fp8 pages", (9, 0), torch.bfloat16, False, "--kv-dtype fp8 needs Triton"),
        ("int8 attention", (9, 0), torch.bfloat16, False, "--attention-dtype int8 needs Triton"),
        ("fp8 linears", (9, 0), torch.float32, True, "--linear-dtype fp8 needs a model of bfloat16"),
        ("int8 attention", (8, 0), torch.bfloat16, True, None),
        ("all", (8, 9), torch.bfloat16, True, None),
        ("all", (10, 0), torch.bfloat16, True, None),
        ("all", None, torch.float32, False, None),
    ],
)
def test_what_a_gpu_cannot_is_refused_by_its_option(
    name: str, capability: tuple[int, int] | None, dtype: torch.dtype, has_triton: bool, sentence: str | None
) -> None:
    found = objection(OPTIONS[name], WIDE, dtype, capability, has_triton=has_triton)
    assert found is None if sentence is None else found is not None and found.startswith(sentence)


def test_widths_that_a_gpu_cannot_multiply_are_refused() -> None:
    odd = replace(WIDE, ffn_dim=8968)
    found = objection(OPTIONS["fp8 linears"], odd, torch.bfloat16, (9, 0), has_triton=True)
    assert found is not None and "multiples of 16" in found
