"""Checkpoint files as names and tensors: mapped from disk, not copied into memory.

Reads ``.safetensors`` (one file, an index of shards, or a folder of either) and ``.pt`` / ``.pth`` with
``weights_only=True``. A mapped tensor costs nothing until it is used: only then are its pages read, workers on one
machine share them, and the system takes them back when memory is short.
"""

import mmap
import pickle
import re
import struct
import sys
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import WeightsError, unread
from engine.model.student import STUDENT_KEYS, find_tensors
from engine.weight_files import INDEX, TORCH_FILES, can_be_mapped, printable, shards_of, weight_file

OnRead = Callable[[Path, int, int], None]
"""Progress of a load: the path that was asked for, the file's bytes done so far, and the bytes that are wanted in all.
Called after each tensor was converted and moved; the last time the two are equal."""

_HEADER_BYTES, _LENGTHS, _LENGTHS_AT = 30, "<HH", 26
"""Of a record's header in a zip archive: its size before name and extra field, and those two's lengths in it."""
_EXPLAINED = (pickle.UnpicklingError, RuntimeError, OSError)
_DAMAGED = (
    *(EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(struct.error, zipfile.BadZipFile),
)
"""What ``torch.load`` raises with words for people, and what a damaged pickle makes it run into."""
_UNMAPPED = re.compile(r"unable to mmap (\d+) bytes .*Cannot allocate memory")


def read_tensors(path: Path, key: str | None = None, among: tuple[str, ...] = STUDENT_KEYS) -> dict[str, Tensor]:
    """All tensors of a checkpoint, on the CPU, under the names the file uses; of a trainer's file the student's alone.

    Tensors lie in mapped pages of the file, except those of the older ``.pth`` format and of packed archives.

    Args:
        path: a file, an index of shards, or a folder of either.
        key: the dictionary of a trainer's file that holds them; None takes the best there is.
        among: the keys that the best is one of, best first.

    Raises:
        WeightsError: the file is absent, truncated, of an unknown kind, holds anything but tensors, or has none under
            ``key``.
    """
    file = weight_file(path)
    if file.suffix in TORCH_FILES:
        return _read_torch(file, key, among)
    if key is not None:
        raise WeightsError(f"{path} is no .pt/.pth file, so it has no key {key}; leave the key out")
    return _read_shards(file) if INDEX.search(file.name) else _read_safetensors(file)


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in shards_of(index):
        found = read_tensors(shard)
        if doubled := tensors.keys() & found.keys():
            raise WeightsError(f"{index} has {printable(min(doubled))} in two shards; fetch the model again")
        tensors |= found
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *_EXPLAINED) as error:
        raise WeightsError(f"{path} cannot be read: {_cause(error)}") from error


def _read_torch(path: Path, key: str | None, among: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        return _plain_tensors(_load(path, key, among), path, key, among)
    except (*_EXPLAINED, *_DAMAGED) as error:
        raise WeightsError(f"{path} cannot be read as plain tensors: {_cause(error)}") from error


def _load(path: Path, key: str | None, among: tuple[str, ...]) -> Any:
    """What the file holds under the key, mapped alone where the system does not map the file as a whole."""
    is_mapped = can_be_mapped(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except RuntimeError as error:
        part = _map_part(path, key, among) if _UNMAPPED.search(str(error)) else None
        if part is None:
            raise
        return part
    return find_tensors(content, path, key, among)


def _plain_tensors(content: Any, path: Path, key: str | None, among: tuple[str, ...]) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value) and not value.is_meta
        for name, value in content.items()
    ):
        where = f", nor has one as {', '.join(among)}" if key is None else f" as {key}"
        raise WeightsError(f"{path} holds no dictionary of tensors{where}; save a state_dict alone")
    return content


def _is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are those that lie in its storage."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_neg() or tensor.is_conj())


def _map_part(path: Path, key: str | None, among: tuple[str, ...]) -> dict[str, Tensor] | None:
    """The wanted tensors in a mapping of their part of the archive; None if that cannot be had for sure.

    For a file with much beside them: Linux maps no more at once, for writing into a copy, than it has memory.
    """
    if not _has_our_byte_order(path):
        return None
    tensors = find_tensors(torch.load(path, map_location="meta", weights_only=True), path, key, among)
    if not isinstance(tensors, dict) or not all(
        isinstance(value, Tensor) and _is_plain(value) for value in tensors.values()
    ):
        return None
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    places = [(storage._checkpoint_offset or 0, storage.nbytes()) for storage in storages]
    if not _are_records(path, places):
        return None
    begin = min(offset for offset, _ in places)
    begin -= begin % mmap.ALLOCATIONGRANULARITY
    end = max(offset + num_bytes for offset, num_bytes in places)
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), end - begin, offset=begin, access=mmap.ACCESS_COPY)
    except OSError:  # too much as well
        return None
    part = torch.frombuffer(mapping, dtype=torch.uint8).untyped_storage()
    mapped = {}
    for (name, tensor), (offset, num_bytes) in zip(tensors.items(), places, strict=True):
        storage = part[offset - begin : offset - begin + num_bytes]
        empty = torch.empty(0, dtype=tensor.dtype)
        mapped[name] = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return mapped


def _has_our_byte_order(path: Path) -> bool:
    """Whether the file has numbers as this machine has them. Others torch swaps, and crashes where there are none."""
    with zipfile.ZipFile(path) as archive:
        marks = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
    return set(marks) <= {sys.byteorder.encode()}


def _are_records(path: Path, places: Iterable[tuple[int, int]]) -> bool:
    """Whether a record of the archive begins at each of these offsets in the file, and has that many bytes.

    Torch computes the offsets from how it writes archives itself; one that was packed again may have others.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
        starts = [record.header_offset for record in records]
        for offset, num_bytes in places:
            record = records[bisect_left(starts, offset) - 1]
            file.seek(record.header_offset + _LENGTHS_AT)
            name_and_extra = sum(struct.unpack(_LENGTHS, file.read(struct.calcsize(_LENGTHS))))
            found = record.header_offset + _HEADER_BYTES + name_and_extra, record.file_size
            if found != (offset, num_bytes):
                return False
    return True


def _cause(error: Exception) -> str:
    """What is wrong and what to do, in one sentence. Torch's own fill a page, with terminal colours in their advice."""
    if isinstance(error, OSError):
        return unread(error)
    if isinstance(error, _DAMAGED):
        return "its list of tensors is cut off or damaged; fetch it again"
    text = str(error)
    if unmapped := _UNMAPPED.search(text):
        size = f"{int(unmapped[1]) / 1e9:.1f} GB"
        return f"the system maps no {size} at once; set vm.overcommit_memory to 1, or save shards of .safetensors"
    if pickled := re.search(r"GLOBAL (\S+)", text):
        return printable(f"it holds a Python object, {pickled[1]}; save its tensors alone")
    told = text.rpartition("WeightsUnpickler error:")[2]
    first = re.split(r"\.\s|\n", re.sub(r"\[enforce fail at \S+\] \.", "", told).strip())[0]
    return printable(f"{first}; fetch it again, or save its tensors alone")
