"""Reading checkpoint files: the key and the file that are taken, and every way a file can be wrong."""

import argparse
import json
import os
import pickle
import random
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import WeightsError
from engine.model.reading import read_tensors
from tests.model.checkpoints import assert_equal, save_sharded, small_student


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return small_student()


# --- what is taken ---


@pytest.mark.parametrize("average", [None, {}, OrderedDict()])
@pytest.mark.parametrize("key", ["generator", "model", "state_dict"])
def test_before_the_average_begins_the_student_itself_is_taken(
    tensors: dict[str, Tensor], tmp_path: Path, average: Any, key: str
) -> None:
    path = tmp_path / "student.pt"
    torch.save({"generator_ema": average, key: tensors, "step": 100}, path)
    assert_equal(read_tensors(path), tensors)


@pytest.mark.parametrize("name", ["model", "generator", "generator_ema", "state_dict"])
def test_a_tensor_may_be_called_like_a_trainers_key(tensors: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    path = tmp_path / "student.pt"
    torch.save(tensors | {name: torch.ones(3)}, path)
    assert_equal(read_tensors(path), tensors | {name: torch.ones(3)})


@pytest.mark.parametrize(
    "variant",
    [
        "w.fp16.safetensors",
        "w.fp16-00001-of-00002.safetensors",
        "w-00001-of-00002.fp16.safetensors",
        "w.fp16.safetensors.index.json",
        "w.safetensors.index.fp16.json",
    ],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_the_plain_file_is_taken_from_beside_its_variant(
    tensors: dict[str, Tensor], tmp_path: Path, variant: str, sharded: bool
) -> None:
    if sharded:
        save_sharded(tensors, tmp_path)
    else:
        save_file(tensors, tmp_path / "w.safetensors")
    (tmp_path / variant).write_bytes(b"of no use")
    assert_equal(read_tensors(tmp_path), tensors)


def test_a_lone_variant_is_taken(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "w.fp16.safetensors")
    assert_equal(read_tensors(tmp_path), tensors)


@pytest.mark.parametrize("name", ["w.fp16.safetensors.index.json", "w.safetensors.index.fp16.json"])
def test_a_lone_variant_in_shards_is_taken(tensors: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    index = save_sharded(tensors, tmp_path, "w.fp16").rename(tmp_path / name)
    assert_equal(read_tensors(tmp_path), tensors)
    assert_equal(read_tensors(index), tensors)


@pytest.mark.parametrize("sharded", [False, True])
def test_links_into_a_cache_of_downloads_are_followed(
    tensors: dict[str, Tensor], tmp_path: Path, sharded: bool
) -> None:
    """Files of a hub's cache are called by their hashes; only the links have names."""
    made, blobs, snapshot = tmp_path / "made", tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    for folder in (made, blobs, snapshot):
        folder.mkdir(parents=True)
    if sharded:
        save_sharded(tensors, made)
    else:
        save_file(tensors, made / "w.safetensors")
    (made / "adapter_config.json").write_text("{}")
    for index, file in enumerate(sorted(made.iterdir())):
        blob = file.rename(blobs / f"{index:040x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    assert_equal(read_tensors(snapshot), tensors)
    name = "w.safetensors.index.json" if sharded else "w.safetensors"
    assert_equal(read_tensors(snapshot / name), tensors)


def test_two_variants_alone_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "w.fp16.safetensors")
    save_file(tensors, tmp_path / "w.bf16.safetensors")
    with pytest.raises(WeightsError, match=r"0 indices and 2 \.safetensors files; leave one"):
        read_tensors(tmp_path)


# --- files that are not what they should be ---


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pt", "gone", "gone.safetensors.index.json"])
def test_absent_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name} does not exist"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_file(tensors: dict[str, Tensor], tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match=path.name):
        read_tensors(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_the_older_format_cut_off_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"generator": {"w": torch.randn(3)}, "step": 1}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        with pytest.raises(WeightsError, match=r"w\.pth .*; fetch it again|Python object"):
            read_tensors(path)


@contextmanager
def as_stranger() -> Iterator[None]:
    """Without the rights of the user who made a file."""
    me, nobody = os.geteuid(), 65534
    if me == 0:
        os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.safetensors.index.json", "w", "closed/w.pt"])
def test_a_file_that_may_not_be_read(tensors: dict[str, Tensor], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix:
            torch.save(tensors, path)
        else:
            path.mkdir()
        closed = path.parent if "/" in name else path
        Path(folder).chmod(0o755)
        closed.chmod(0)
        with as_stranger(), pytest.raises(WeightsError) as caught:
            read_tensors(path)
        closed.chmod(0o700)
    assert str(caught.value).startswith(str(path))
    assert "permission denied to user " in str(caught.value)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"\.pt cannot be read: file name too long"):
        read_tensors(tmp_path / f"{'w' * 300}.pt")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://example.com/spec/v1\n"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".safetensors.index.json"])
def test_file_of_something_else(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=path.name):
        read_tensors(path)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors", "w.safetensors.index.json"])
def test_what_git_leaves_in_place_of_a_large_file_is_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model" / name
    path.parent.mkdir()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    told = rf"{name} is a Git LFS pointer, not the file itself; run git lfs pull, or fetch it with hiar-download$"
    for given in [path] if name.startswith("w.pt") else [path, path.parent]:
        with pytest.raises(WeightsError, match=told):
            read_tensors(given)


def test_a_pointer_in_place_of_a_shard_is_called_so(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded(tensors, tmp_path)
    (tmp_path / "w-00002-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match=r"w-00002-of-00002\.safetensors is a Git LFS pointer"):
        read_tensors(index)


class Bait:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_program_is_refused_and_not_run(tensors: dict[str, Tensor], tmp_path: Path, legacy: bool) -> None:
    bites = tmp_path / "bites"
    pickle.loads(pickle.dumps(Bait(bites)))
    assert bites.exists(), "the bait is dull"
    marker, path = tmp_path / "marker", tmp_path / "hiar.pt"
    torch.save({"generator": tensors, "step": Bait(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"hiar\.pt cannot be read as plain tensors: it holds a Python object, "):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker, path = tmp_path / "marker", tmp_path / "hiar.pth"
    path.write_bytes(pickle.dumps(Bait(marker), protocol))
    with pytest.raises(WeightsError, match=r"hiar\.pth"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"generator": 3},
        {"generator_lora": {}},
        {"critic": {"a": torch.zeros(1)}},
        {0: torch.zeros(1)},
        {"a": torch.zeros(1), "b": "text"},
        {"a": torch.zeros(1, device="meta")},
        {"a": torch.zeros(1).to_sparse()},
        None,
    ],
)
def test_torch_file_without_tensors(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "hiar.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"hiar\.pt holds no dictionary of tensors.*; save a state_dict alone"):
        read_tensors(path)


def test_unknown_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"model\.gguf is neither"):
        read_tensors(path)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/secret.safetensors", "sub/w.safetensors", "..", "."])
def test_shards_stay_in_their_folder(tensors: dict[str, Tensor], tmp_path: Path, shard: str) -> None:
    save_file(tensors, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    save_file(tensors, folder / "sub" / "w.safetensors")
    (folder / "w.safetensors.index.json").write_text(json.dumps({"weight_map": {"head.modulation": shard}}))
    with pytest.raises(WeightsError, match=r"no \.safetensors file of its folder"):
        read_tensors(folder)


def test_a_missing_shard_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded(tensors, tmp_path / "model")
    (index.parent / "w-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"w-00002-of-00002\.safetensors does not exist"):
        read_tensors(index.parent)


def test_a_tensor_in_two_shards_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = save_sharded(tensors, tmp_path)
    save_file(tensors, tmp_path / "w-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"has blocks\.0\.weight in two shards; fetch the model again"):
        read_tensors(index)


def test_names_in_an_index_cannot_steer_a_terminal(tmp_path: Path) -> None:
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "\x1b[31m\n.bin"}}))
    with pytest.raises(WeightsError) as caught:
        read_tensors(index)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"weight_map": ["w.safetensors"]},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": "w.safetensors.index.json"}},
    ],
)
def test_broken_shard_index(tmp_path: Path, content: Any) -> None:
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=index.name):
        read_tensors(index)


def test_folder_without_or_with_too_many_files(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"0 indices and 0 \.safetensors"):
        read_tensors(tmp_path)
    save_file(tensors, tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"0 indices and 2 \.safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (
            {"generator": {}, "args": argparse.Namespace(lr=1.0)},
            "it holds a Python object, argparse.Namespace; save its tensors alone",
        ),
        ({"generator": {}, "path": Path("/x")}, "it holds a Python object, pathlib"),
    ],
)
def test_a_pickled_object_is_named_in_a_sentence(tmp_path: Path, content: Any, cause: str) -> None:
    path = tmp_path / "hiar.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as plain tensors: {cause}")
    assert message.isprintable()
    assert "[1m" not in message
    assert len(message) < len(str(path)) + 120


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("older", [False, True])
def test_damage_anywhere_is_refused_in_a_sentence_or_does_not_matter(tmp_path: Path, older: bool) -> None:
    path, chance = tmp_path / "hiar.pt", random.Random(0)
    torch.save({"generator": {"w": torch.randn(3)}, "step": 1}, path, _use_new_zipfile_serialization=not older)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except WeightsError as error:
            refused += 1
            assert str(error).startswith(f"{path} "), "no path"
            assert str(error).isprintable()
    assert refused > 50
