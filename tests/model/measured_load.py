"""Loads a network and tells, as JSON, what that took: memory of the process's own, and pages of the file.

To be run as a process of its own, ``python -m tests.model.measured_load PART FILE TYPE...``, with one number set for
each type in turn; PART is a name that ``loader_of`` knows.
"""

import ctypes
import gc
import json
import mmap
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.config import DecoderConfig, DecoderKind, Lora, TextConfig, TransformerConfig
from engine.model.dit import CausalWan
from engine.model.weights import load_decoder, load_transformer

TRANSFORMER = TransformerConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=4, text_dim=64, text_len=16, freq_dim=64)
DECODER = DecoderConfig(kind=DecoderKind.WAN, dim=64)
TEXT = TextConfig(
    vocab_size=60_000, dim=512, dim_attn=512, dim_ffn=1024, num_heads=8, num_layers=2, num_buckets=32, text_len=16
)
LORA_NAME = "lora.safetensors"
"""Beside the base, which it changes all large weights of."""


def load_changed(path: Path, *args: Any, **options: Any) -> CausalWan:
    """The transformer with the LoRA beside it merged into it."""
    return load_transformer(TRANSFORMER, path, *args, loras=[Lora(file=path.with_name(LORA_NAME))], **options)


def loader_of(part: str) -> Callable[..., object]:
    """What loads the transformer, the decoder or the text encoder, with all that it imports."""
    if part == "transformer":
        return partial(load_transformer, TRANSFORMER)
    if part == "changed transformer":
        return load_changed
    if part == "decoder":
        return partial(load_decoder, DECODER)
    from engine.model.text import load_encoder  # noqa: PLC0415 - slow to import; two parts of three do not need it

    return partial(load_encoder, TEXT)


def anonymous_bytes() -> int:
    """Memory that belongs to this process alone and cannot be read again from a file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def cached_bytes(path: Path) -> int:
    """How much of the file the system holds in memory: what was written lately, or read."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        del start  # or the mapping cannot be closed
    assert failed == 0
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


class Peak(threading.Thread):
    """Samples the process's own memory: all the time, and when asked to. Never more than was there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = anonymous_bytes()
        self._over = threading.Event()

    def sample(self, *_: object) -> None:
        self.peak = max(self.peak, anonymous_bytes())

    def run(self) -> None:
        while not self._over.wait(0.0005):
            self.sample()

    def end(self) -> int:
        """Return the most that came on top of what was there at first, in bytes."""
        self._over.set()
        self.join()
        return self.peak - self.before


def measure(load: Callable[..., object], path: Path, dtype: torch.dtype) -> dict[str, int]:
    """Load once; all numbers in bytes."""
    gc.collect()
    cached, peak = cached_bytes(path), Peak()
    peak.start()
    model = load(path, torch.device("cpu"), dtype, on_read=peak.sample)
    assert isinstance(model, torch.nn.Module)
    anonymous = peak.end()
    sizes = [parameter.nbytes for parameter in model.parameters()]
    read = cached_bytes(path) - cached
    return {"anonymous": anonymous, "read": read, "kept": sum(sizes)}


if __name__ == "__main__":
    loader, file = loader_of(sys.argv[1]), Path(sys.argv[2])
    json.dump([measure(loader, file, getattr(torch, name)) for name in sys.argv[3:]], sys.stdout)
