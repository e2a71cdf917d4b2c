"""Processes in which Triton runs kernels in its interpreter, or compiles them.

Triton decides that once, when it is imported, so the process of the tests themselves leaves it alone.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

Call = Callable[..., Any]
"""``call(function, *arguments)`` runs a function of a module there and returns what it returns."""


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Call]:
    """Where CPU tensors go through the kernels."""
    yield from _process("1")


@pytest.fixture(scope="session")
def compiling() -> Iterator[Call]:
    """Where kernels compile; no GPU is needed."""
    yield from _process("0")


def _process(interpret: str) -> Iterator[Call]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(interpret,)) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


def _prepare(interpret: str) -> None:
    os.environ["TRITON_INTERPRET"] = interpret
    torch.set_num_threads(1)
