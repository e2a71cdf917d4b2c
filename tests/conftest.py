"""What all tests share."""

import gc
import os
import signal
from pathlib import Path

import pytest
import torch

gc.disable()  # until all tests are imported, which makes garbage of nothing
# Loading certificates takes each new HTTP client 20 ms, and nearly each request here makes one. No server here has any.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
os.environ["HIAR_DATA"] = "memory"  # servers of tests write nothing to the user's folder
torch.set_num_threads(1)  # tensors here are tiny; threads that wait for each other are slow beside busy servers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would children


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where one marker alone is asked for, leave files alone that do not name it: to import them takes ten seconds."""
    marker = config.option.markexpr
    if not marker.isidentifier() or collection_path.suffix != ".py":
        return None
    return f".{marker}" not in collection_path.read_text() or None


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
