"""Weight files that are not whole: told by their tables alone, in a sentence that names the file."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch

from engine.errors import WeightsError
from engine.manifest import read_manifest
from engine.weight_files import require_whole, require_whole_files

TINY = Path(__file__).parents[2] / "models" / "tiny"


def table(content: object, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def row(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def test_the_small_model_is_whole() -> None:
    require_whole_files(read_manifest(TINY))


@pytest.mark.parametrize("content", [table({"a": row(0, 4), "b": row(4, 8)}, bytes(8)), table({"__metadata__": {}})])
def test_a_table_that_ends_where_the_file_does(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    require_whole(file)
    require_whole(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no table"),
        (b"\x08\0\0\0", "has no table"),
        (struct.pack("<Q", 0), "has no table"),
        (struct.pack("<Q", 2**63) + b"{}", "has no table"),
        (table({"a": row(0, 8)})[:-2], "has no table"),
        (table([1]), "cannot be read"),
        (table({"a": {}}), "cannot be read"),
        (table({"a": row(0, 8)}, bytes(7)), "is cut off: it has "),
        (table({"a": row(0, 8)}, bytes(9)), "is damaged: it has "),
    ],
)
def test_a_file_that_is_not_whole(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.safetensors .*{why}.*; fetch it again$"):
        require_whole(file)


def test_a_shard_that_is_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "w-00001-of-00002.safetensors").write_bytes(table({"a": row(0, 4)}, bytes(4)))
    (tmp_path / "w-00002-of-00002.safetensors").write_bytes(table({"b": row(0, 4)}, bytes(3)))
    index = {"weight_map": {"a": "w-00001-of-00002.safetensors", "b": "w-00002-of-00002.safetensors"}}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"w-00002-of-00002\.safetensors is cut off: "):
        require_whole(tmp_path)


def test_a_file_of_torch_is_whole_as_long_as_its_table_is(tmp_path: Path) -> None:
    file, older = tmp_path / "w.pt", tmp_path / "older.pth"
    torch.save({"a": torch.ones(1000)}, file)
    torch.save({"a": torch.ones(1000)}, older, _use_new_zipfile_serialization=False)
    require_whole(file)
    require_whole(older)
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(WeightsError, match=r"w\.pt is cut off or damaged, it has no table of contents; fetch it again"):
        require_whole(file)
