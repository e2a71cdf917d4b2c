"""Forwards replayed from fixed buffers equal forwards that are laid out anew; a capture is a plain call here."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.model.capture import Captured, Captures
from engine.model.dit import CausalWan
from engine.model.graphs import GraphedWan, TextBuffers
from engine.model.segments import PagedCache, SegmentBatch
from kernels.attention.choice import Choice
from kernels.attention.formula import paged_attention_reference
from tests.stage import micro

CPU = torch.device("cpu")
WINDOW, NUM_PAGES = 3, 8


class Counter:
    """Counts captures; a replay is the captured call itself."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, forward: Callable[[], Tensor]) -> Captured:
        self.count += 1
        return forward


def pool(seed: int) -> PagedCache:
    random = torch.Generator().manual_seed(seed)
    sizes = micro.TRANSFORMER
    shape = (sizes.num_layers, NUM_PAGES, micro.TOKENS, sizes.num_heads, sizes.head_dim)
    return PagedCache(torch.randn(shape, generator=random), torch.randn(shape, generator=random))


def batch(
    seed: int,
    page_lists: tuple[tuple[int, ...], ...],
    writes: tuple[int, ...],
    token_lists: tuple[tuple[int, ...], ...] = (),
) -> SegmentBatch:
    random = torch.Generator().manual_seed(seed)
    count, model = len(page_lists), micro.model()
    shape = (count, 3, micro.TRANSFORMER.in_dim, micro.HEIGHT, micro.WIDTH)
    prompts = [torch.randn(1 + (seed + g) % 5, micro.TRANSFORMER.text_dim, generator=random) for g in range(count)]
    return SegmentBatch(
        latents_GFCYX=torch.randn(shape, generator=random),
        timesteps_G=torch.rand(count, generator=random) * 1000,
        starts_G=torch.randint(0, 10**6, (count,), generator=random),
        contexts=tuple(map(model.encode_context, prompts)),
        page_lists=page_lists,
        write_pages=writes,
        token_lists=token_lists,
    )


BATCHES = [
    batch(1, ((0, 1), (0, 1, 5)), (5,)),
    batch(2, ((), (6,)), (6,)),  # the same shape, other pages, prompts and blocks
    batch(3, ((2,),), ()),
    batch(4, ((3, 4), (1,)), (7, 2)),
    batch(5, ((4,), (3, 2, 1)), (0,)),
    batch(6, ((0, 1), (0, 1, 5)), (5,), ((micro.TOKENS // 3, micro.TOKENS), (1, 2, micro.TOKENS))),
]


@torch.inference_mode()
def test_replays_from_fixed_buffers_equal_new_forwards() -> None:
    counter, model = Counter(), micro.model()
    graphed, theirs, ours = graphed_wan(model, counter), pool(9), pool(9)
    for one in (BATCHES[0], BATCHES[2]):
        graphed.capture(one, ours)
    for tensor, fresh in zip(ours.tensors, theirs.tensors, strict=True):
        tensor.copy_(fresh)  # what captures left there means nothing
    for one in (*BATCHES, *BATCHES):
        expected = model(one, theirs)
        assert torch.equal(graphed(one, ours), expected)
        assert torch.equal(ours.keys_NPLHK, theirs.keys_NPLHK)
        assert torch.equal(ours.values_NPLHK, theirs.values_NPLHK)
    assert counter.count == 2, "a shape that was not captured runs without a graph"


@torch.inference_mode()
def test_graphs_refuse_another_pool_than_theirs() -> None:
    graphed, ours, other = graphed_wan(micro.model(), Counter()), pool(9), pool(9)
    graphed.capture(BATCHES[0], ours)
    with pytest.raises(AssertionError, match="another pool"):
        graphed(BATCHES[0], other)
    with pytest.raises(AssertionError, match="another pool"):
        graphed.capture(BATCHES[2], other)
    assert len(graphed(BATCHES[2], other)) == 1, "what is not captured reads any pool"


@torch.inference_mode()
def test_nothing_is_captured_once_captures_are_closed() -> None:
    captures = Captures(Counter())
    graphed = GraphedWan(micro.model(), window_pages=WINDOW, max_segments=4, captures=captures)
    ours = pool(9)
    graphed.capture(BATCHES[0], ours)
    captures.close()
    with pytest.raises(AssertionError, match="met the others"):
        graphed.capture(BATCHES[2], ours)


@torch.inference_mode()
def test_a_prompt_is_copied_only_when_it_is_another() -> None:
    text = TextBuffers(micro.TRANSFORMER, 3, CPU, torch.float32)
    first, other = BATCHES[0].contexts, BATCHES[1].contexts
    assert text.fill(first) == 2
    assert text.fill(first) == 0
    assert text.fill((first[0], other[1])) == 1
    assert text.fill((*other, first[0])) == 2
    assert text.rows.num_rows_G.tolist() == [len(context.bias_T) for context in (*other, first[0])]


def test_the_prompt_of_an_ended_video_is_not_kept() -> None:
    text = TextBuffers(micro.TRANSFORMER, 1, CPU, torch.float32)
    context = micro.model().encode_context(micro.embedding(1))
    text.fill((context,))
    gone = weakref.ref(context)
    del context
    assert gone() is None


@torch.inference_mode()
def test_shapes_share_their_buffers() -> None:
    graphed = graphed_wan(micro.model(), Counter())
    addresses = {graphed._fill(one).latents_GFCYX.data_ptr() for one in BATCHES}
    assert len(addresses) == 1


@torch.inference_mode()
def test_a_full_window_with_a_shorter_page_takes_the_attention_that_takes_any() -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("it would read all tokens of every page")

    model, full = micro.model(), ((0, 1, 2), (3, 4, 5))
    only_full = Choice("only full", refuse, paged_attention_reference)
    graphed = GraphedWan(model, window_pages=WINDOW, max_segments=4, captures=Captures(Counter()), attention=only_full)
    shorter = batch(7, full, (), ((micro.TOKENS - 1, *[micro.TOKENS] * 2), (micro.TOKENS,) * 3))
    torch.testing.assert_close(graphed(shorter, pool(9)), model(shorter, pool(9)))
    for even in (batch(7, full, ()), batch(7, full, (), ((micro.TOKENS,) * 3,) * 2)):
        with pytest.raises(AssertionError, match="all tokens of every page"):
            graphed(even, pool(9))


def graphed_wan(model: CausalWan, counter: Counter) -> GraphedWan:
    return GraphedWan(model, window_pages=WINDOW, max_segments=4, captures=Captures(counter))
