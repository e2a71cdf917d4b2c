"""Where the tensors of a checkpoint lie: in the file's own pages, even of one that is larger than memory."""

import json
import mmap
import os
import resource
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import set_default_mmap_options, skip_data

from engine.errors import WeightsError
from engine.model.reading import read_tensors
from tests.model.checkpoints import assert_equal, small_student

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about mappings")


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return small_student()


def is_mapped(tensor: Tensor, path: Path) -> bool:
    """Whether the tensor's memory is the file's."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= tensor.data_ptr() < int(end, 16):
            return line.endswith(str(path))
    raise AssertionError("memory of nobody")


@LINUX
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_tensors_are_mapped(tensors: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    assert all(is_mapped(tensor, path) for tensor in read_tensors(path).values())


@contextmanager
def mappings_up_to(num_bytes: int) -> Iterator[None]:
    """The system maps no more than this for the process, as it does for files larger than its memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(used.split()[1]) * 1024 + num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def save_beside(critic_bytes: int, tensors: dict[str, Tensor], path: Path) -> None:
    """A student between parts of a critic, which is a hole in the file."""
    with skip_data():
        critic = torch.empty(critic_bytes, dtype=torch.uint8)
        torch.save({"critic": critic[:1000].clone(), "generator": tensors, "critic_ema": critic}, path)
    with set_default_mmap_options(mmap.MAP_SHARED):
        for name, tensor in torch.load(path, mmap=True)["generator"].items():
            tensor.copy_(tensors[name])


@LINUX
def test_a_student_is_mapped_alone_where_the_whole_file_cannot_be(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, whole = tmp_path / "hiar.pt", torch.randn(4, 6)
    given = tensors | {"rows": whole[1:3], "turned": whole.T, "half": torch.randn(3, 5).half(), "none": torch.empty(0)}
    save_beside(400_000_000, given, path)
    with mappings_up_to(200_000_000):
        with pytest.raises(RuntimeError, match="unable to mmap"):
            torch.load(path, mmap=True)
        found = read_tensors(path)
    assert_equal(found, given)
    assert found["turned"].stride() == given["turned"].stride()
    assert all(is_mapped(tensor, path) for tensor in found.values() if tensor.numel())
    before = path.read_bytes()[:100_000]
    found["rows"].zero_()
    assert path.read_bytes()[:100_000] == before, "a student can be changed, but not its file"


@LINUX
def test_the_asked_key_is_mapped_alone_where_the_whole_file_cannot_be(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path, other = tmp_path / "hiar.pt", {name: tensor + 1 for name, tensor in tensors.items()}
    content = {"generator_ema": other, "critic": torch.zeros(25_000_000), "generator": tensors}
    torch.save({"state_dict": content}, path)
    with mappings_up_to(50_000_000):
        found = read_tensors(path, "generator")
        assert_equal(read_tensors(path), other)
        with pytest.raises(WeightsError, match=r"has no model; .* state_dict\.generator_ema, state_dict\.generator$"):
            read_tensors(path, "model")
    assert_equal(found, tensors)
    assert all(is_mapped(tensor, path) for tensor in found.values())


@LINUX
@pytest.mark.parametrize("name", ["hiar.pt", "hiar.safetensors"])
def test_a_file_that_cannot_be_mapped_is_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        with skip_data():  # a hole of this size, made in a moment
            torch.save({"generator": {"w": torch.empty(100_000_000)}}, path)
    else:
        header = json.dumps({"w": {"dtype": "U8", "shape": [400_000_000], "data_offsets": [0, 400_000_000]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, path.stat().st_size + 400_000_000)
    fix = r"maps no 0\.4 GB at once; set vm\.overcommit_memory to 1, or save shards of \.safetensors$"
    with mappings_up_to(200_000_000), pytest.raises(WeightsError, match=rf"{name} cannot be read.*: the system {fix}"):
        read_tensors(path)


def pack_anew(source: Path, target: Path, **replaced: bytes) -> None:
    """Copy an archive's records, with other content for those whose names are given."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as packed:
        for entry in whole.infolist():
            content = replaced.get(entry.filename.rpartition("/")[2], whole.read(entry))
            packed.writestr(entry.filename, content)


@LINUX
def test_an_archive_that_was_packed_anew_is_not_mapped_in_part(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """Its tensors lie elsewhere than where torch computes them to be."""
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"critic": torch.zeros(25_000_000), "generator": tensors}, plain)
    pack_anew(plain, packed)
    assert_equal(read_tensors(packed), tensors)
    with mappings_up_to(50_000_000):
        assert_equal(read_tensors(plain), tensors)
        with pytest.raises(WeightsError, match=r"packed\.pt cannot .* maps no 0\.1 GB at once"):
            read_tensors(packed)


@LINUX
def test_numbers_of_another_byte_order_are_not_mapped_in_part(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.pt", tmp_path / "other.pt"
    swapped = {name: torch.from_numpy(tensor.numpy().byteswap()) for name, tensor in tensors.items()}
    torch.save({"critic": torch.zeros(25_000_000), "generator": swapped}, plain)
    pack_anew(plain, other, byteorder=b"big" if sys.byteorder == "little" else b"little")
    assert_equal(read_tensors(other), tensors)
    with mappings_up_to(50_000_000), pytest.raises(WeightsError, match=r"other\.pt cannot .* maps no 0\.1 GB at once"):
        read_tensors(other)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_the_older_format_is_read_whole(tensors: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save({"generator": tensors}, path, _use_new_zipfile_serialization=False)
    assert_equal(read_tensors(path), tensors)


def test_packed_bytes_do_not_pass_for_weights(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    # Mapping the packed file would not fail: after each tensor there are bytes enough to fill it.
    torch.save({"generator": tensors, "critic": {"rest": torch.randn(100_000)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            kind = zipfile.ZIP_DEFLATED if entry.file_size < 10_000 else zipfile.ZIP_STORED
            target.writestr(entry.filename, source.read(entry), kind)
    assert_equal(read_tensors(packed), tensors)
