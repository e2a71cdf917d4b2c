"""How attention is chosen: by candidates made up for the purpose, and by those that run on a CPU."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from engine.model.capture import Captures
from engine.model.graphs import GraphedWan
from engine.model.segments import PagedCache, SegmentBatch
from engine.stage.build import attention_name
from kernels.attention import choice as choice_module
from kernels.attention.choice import (
    GATES,
    Candidate,
    Choice,
    NoAttentionError,
    PagedAttention,
    Work,
    candidates_on,
    choose_attention,
    gathered_attention,
    seconds_by_clock,
    seconds_by_events,
)
from kernels.attention.formula import paged_attention_reference
from kernels.attention.table import PageTable, page_table
from kernels.dispatch import uses_triton
from tests.kernels.conftest import Call
from tests.stage import micro

Captured = Callable[[], Tensor]
CPU = torch.device("cpu")
TOKENS, HEADS, WIDTH, PAGES = 19, 2, 16, 3
MATH = partial(gathered_attention, SDPBackend.MATH)


def right(*arguments: Tensor | PageTable) -> Tensor:
    out: Tensor = paged_attention_reference(*arguments)  # type: ignore[arg-type]
    return out


def off_by(error: float) -> PagedAttention:
    return lambda *arguments: right(*arguments) * (1 + error)


def raising(error: Exception) -> PagedAttention:
    def attend(*arguments: Tensor | PageTable) -> Tensor:
        raise error

    return attend


def taking(seconds: dict[str, float]) -> Callable[[Mapping[str, Work]], dict[str, float]]:
    """A clock that knows the answers; it runs the works all the same."""

    def timed(works: Mapping[str, Work]) -> dict[str, float]:
        for work in works.values():
            work()
        return {name: seconds[name] for name in works}

    return timed


def choose(
    candidates: list[Candidate],
    seconds: dict[str, float],
    dtype: torch.dtype = torch.float32,
    num_pages: int = PAGES,
    known: tuple[str, ...] = (),
) -> Choice:
    return choose_attention(
        CPU,
        dtype,
        TOKENS,
        HEADS,
        WIDTH,
        num_pages,
        timed=taking(seconds),
        candidates=candidates,
        known=known,
        num_segments=3,
    )


def test_the_fastest_is_taken() -> None:
    candidates = [Candidate("slow", off_by(0)), Candidate("fast", off_by(0)), Candidate("middle", off_by(0))]
    choice = choose(candidates, {"slow": 3.0, "fast": 1.0, "middle": 2.0})
    assert choice.name == "fast" and choice.full is choice.growing is candidates[1].attend
    assert [(trial.name, trial.seconds) for trial in choice.trials] == [("slow", 3.0), ("fast", 1.0), ("middle", 2.0)]
    assert all(trial.error is not None and trial.error < GATES[torch.float32] for trial in choice.trials)
    assert str(choice.trials[1]) == "fast 1000.000 ms"


@pytest.mark.parametrize("dtype", GATES, ids=str)
def test_wrong_numbers_are_left_out(dtype: torch.dtype) -> None:
    wrong = Candidate("wrong", off_by(max(4 * GATES[dtype], 0.01)))
    choice = choose([wrong, Candidate("right", right)], {"wrong": 1.0, "right": 2.0}, dtype)
    assert choice.name == "right"
    trial = choice.trials[0]
    assert trial.seconds is None and trial.error is not None and trial.error > GATES[dtype]
    assert trial.refusal is not None and trial.refusal.startswith("relative error 1.") and "allowed" in str(trial)


@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_nan_is_wrong(spoilt: int) -> None:
    """In any segment, and in a growing window only, too."""

    def attend(*arguments: Tensor | PageTable) -> Tensor:
        table = arguments[-1]
        assert isinstance(table, PageTable)
        out = right(*arguments)
        if table.num_pages_G.min() < PAGES:
            out[spoilt] = torch.nan
        return out

    choice = choose([Candidate("nan", attend), Candidate("right", right)], {"nan": 1.0, "right": 2.0})
    assert choice.name == "right" and choice.trials[0].refusal == "relative error nan, 2.0e-06 is allowed"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("No available kernel. Aborting execution.\nMore."),
            "RuntimeError: No available kernel. Aborting",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "OutOfMemoryError: CUDA out of memory."),
        (ValueError(), "ValueError: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_raising_ones_are_left_out_with_their_sentence(error: Exception, sentence: str) -> None:
    choice = choose([Candidate("raising", raising(error)), Candidate("right", right)], {"right": 2.0})
    refusal = choice.trials[0].refusal
    assert choice.name == "right" and refusal is not None
    assert refusal.startswith(sentence) and "\n" not in refusal
    assert str(choice.trials[0]) == f"raising left out: {refusal}"


def test_growing_windows_take_the_fastest_that_can() -> None:
    candidates = [
        Candidate("slow", off_by(0)),
        Candidate("gathered", MATH, takes_any_table=False),
        Candidate("middle", off_by(0)),
    ]
    choice = choose(candidates, {"slow": 3.0, "gathered": 1.0, "middle": 2.0})
    assert choice.name == "gathered"
    assert choice.full is candidates[1].attend and choice.growing is candidates[2].attend


def test_one_for_full_windows_is_checked_on_those_only() -> None:
    choice = choose([Candidate("gathered", MATH), Candidate("right", right)], {"right": 2.0})
    assert choice.name == "right" and "relative error" in str(choice.trials[0])


def test_what_passed_before_is_tried_alone_and_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("a process was made")

    monkeypatch.setattr(choice_module, "refusal_apart", refuse)
    ways = [
        Candidate("never seen", raising(RuntimeError("must not run"))),
        Candidate("could stand still", right, apart_first=True),
        Candidate("other", right),
    ]
    choice = choose(ways, {"other": 2.0, "could stand still": 1.0}, known=("could stand still", "other"))
    assert choice.name == "could stand still" and choice.sound == ("could stand still", "other")


def test_without_one_for_any_window_there_is_no_choice() -> None:
    candidates = [Candidate("gathered", MATH, takes_any_table=False), Candidate("none", raising(ValueError("why not")))]
    with pytest.raises(NoAttentionError, match=r"gathered 1000\.000 ms; none left out: ValueError: why not"):
        choose(candidates, {"gathered": 1.0})


def test_a_window_of_one_block_has_no_pages() -> None:
    candidates = [Candidate("gathered", MATH, takes_any_table=False), Candidate("right", right)]
    assert choose(candidates, {"gathered": 1.0, "right": 2.0}, num_pages=0).name == "gathered"


def test_random_numbers_of_others_are_left_alone() -> None:
    state = torch.random.get_rng_state()
    choose([Candidate("right", right)], {"right": 2.0})
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gathered_pages_give_what_pages_give() -> None:
    """Pages in any order, shared, longer than a segment, and NaN where nothing may be read."""
    random = torch.Generator().manual_seed(5)
    q, k, v = torch.randn(3, 2, TOKENS, HEADS, WIDTH, generator=random)
    k_pages, v_pages = torch.randn(2, 6, TOKENS + 5, HEADS, WIDTH, generator=random)
    for pages in (k_pages, v_pages):
        pages[:, TOKENS:] = torch.nan
        pages[3] = torch.nan
    arguments = (q, k, v, k_pages, v_pages, page_table(((5, 1), (1, 0)), (), CPU, page_tokens=TOKENS))
    torch.testing.assert_close(MATH(*arguments), right(*arguments), rtol=1e-5, atol=1e-6)


def test_a_cpu_has_torchs_attention_only() -> None:
    assert [one.name for one in candidates_on(CPU, torch.float32)] == ["torch-sdpa"]
    choice = choose_attention(CPU, torch.float32, TOKENS, HEADS, WIDTH, PAGES, timed=seconds_by_clock)
    assert choice.name == "torch-sdpa" and choice.trials[0].seconds is not None


def test_a_clock_takes_the_median() -> None:
    counts = {"a": 0, "b": 0}

    def work(name: str) -> None:
        counts[name] += 1

    seconds = seconds_by_clock({name: partial(work, name) for name in counts})
    assert set(seconds) == {"a", "b"} and all(0 <= one < 1 for one in seconds.values())
    assert counts["a"] == counts["b"] >= 10


@torch.inference_mode()
def test_full_and_growing_windows_are_captured_apart() -> None:
    """The one for full windows would read pages that growing ones have not got."""
    captured: list[Captured] = []

    def capture(forward: Captured) -> Captured:
        captured.append(forward)
        forward()
        return forward

    model, attended = micro.model(), []

    def gathered(*arguments: Any) -> Tensor:
        attended.append(arguments[-1].num_pages_G.tolist())
        return MATH(*arguments)

    graphed = GraphedWan(
        model,
        window_pages=2,
        max_segments=2,
        captures=Captures(capture),
        attention=Choice("gathered", gathered, right),
    )
    assert attention_name(graphed) == "gathered" and attention_name(model) == attention_name(None) == "torch-sdpa"
    sizes = micro.TRANSFORMER
    pool = torch.randn(2, sizes.num_layers, 5, micro.TOKENS, sizes.num_heads, sizes.head_dim)
    theirs, ours = (PagedCache(*(x.clone() for x in pool)) for _ in range(2))
    for step, page_lists in enumerate((((), (3,)), ((0,), (1, 3)), ((0, 1), (1, 3)), ((4, 1), (0, 3)), ((2,), (3, 0)))):
        attended.clear()
        batch = SegmentBatch(
            latents_GFCYX=torch.randn(2, 3, sizes.in_dim, micro.HEIGHT, micro.WIDTH),
            timesteps_G=torch.tensor([0.0, 700.0]),
            starts_G=torch.tensor([step, step + 1]) * 3,
            contexts=(model.encode_context(micro.embedding(1)),) * 2,
            page_lists=page_lists,
            write_pages=(3,),
        )
        if not step:
            graphed.capture(batch, ours)
            attended.clear()
        torch.testing.assert_close(graphed(batch, ours), model(batch, theirs))
        torch.testing.assert_close(ours.keys_NPLHK, theirs.keys_NPLHK)
        torch.testing.assert_close(ours.values_NPLHK, theirs.values_NPLHK)
        assert bool(attended) == (min(map(len, page_lists)) == 2)
    assert len(captured) == 2


def takes_kernels() -> tuple[bool, bool, bool]:
    """A plain tensor; one that asks for gradients; the same where nobody records them."""
    learnt = torch.zeros(1, requires_grad=True)
    with torch.no_grad():
        unrecorded = uses_triton(learnt)
    return uses_triton(torch.zeros(1)), uses_triton(learnt), unrecorded


def choose_kernel(dtype: torch.dtype) -> tuple[str, tuple[str, ...], bool]:
    """Names of the choice and of all candidates, and whether any was refused, where CPU tensors take the kernels."""
    choice = choose_attention(CPU, dtype, TOKENS, HEADS, WIDTH, 1, timed=seconds_by_clock)
    return choice.name, tuple(trial.name for trial in choice.trials), any(trial.refusal for trial in choice.trials)


@pytest.mark.slow
def test_a_tensor_that_asks_for_gradients_takes_no_kernel(interpreted: Call) -> None:
    assert interpreted(takes_kernels) == (True, False, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float16, "triton-pointers"), (torch.float32, "triton-float32")], ids=str
)
def test_kernels_are_candidates_where_they_run(dtype: torch.dtype, name: str, interpreted: Call) -> None:
    assert interpreted(choose_kernel, dtype) == (name, (name,), False)


@pytest.mark.gpu
def test_a_gpu_chooses_a_way_for_the_published_model() -> None:
    """All candidates of this GPU at 4680 tokens, 12 heads of 128 and six pages; what was chosen can be captured."""
    device = torch.device("cuda")
    choice = choose_attention(device, torch.bfloat16, 4680, 12, 128, 6, timed=seconds_by_events)
    assert all(trial.refusal is None for trial in choice.trials if trial.name.startswith("triton")), choice.trials
    q, k, v = (torch.randn(2, 4680, 12, 128, device=device, dtype=torch.bfloat16) for _ in range(3))
    k_pages, v_pages = (torch.randn(7, 4680, 12, 128, device=device, dtype=torch.bfloat16) for _ in range(2))
    table = page_table(((0, 1, 2, 3, 4, 5), (6, 5, 4, 3, 2, 1)), (), device, page_tokens=4680)
    for attend in (choice.full, choice.growing):
        expected = attend(q, k, v, k_pages, v_pages, table)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = attend(q, k, v, k_pages, v_pages, table)
        graph.replay()
        assert torch.equal(out, expected)
