"""Weight files as they lie on disk: which file is meant, and whether all of it is there. Knows no tensor's values.

Reads a file's table of contents, never its weights, so that a start is refused before anything is loaded.
"""

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from engine.config import Manifest
from engine.errors import StartError, WeightsError, unread

FILE, INDEX = ".safetensors", re.compile(r"\.safetensors\.index(\.\w+)?\.json$")
TORCH_FILES = {".pt", ".pth"}
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_POINTER_START = b"version https://git-lfs"
_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
_LENGTH = "<Q"
"""What a ``.safetensors`` file begins with: the size of its table."""
_MAX_TABLE_BYTES = 100_000_000
"""The library takes no larger one."""


def require_whole_files(manifest: Manifest) -> None:
    """Raise ``StartError`` unless every file of the model is there, and as long as its own table says."""
    parts = (manifest.transformer_file, manifest.decoder_file, manifest.encoder_file, manifest.text_file)
    for path in dict.fromkeys((*parts, *(lora.file for lora in manifest.loras))):
        if path is not None:
            require_whole(path)
    if manifest.tokenizer_file is not None:
        refuse_pointer(tokenizer_file(manifest.tokenizer_file))


def require_whole(path: Path) -> None:
    """Raise ``WeightsError`` if the weights at ``path`` are absent, stand for others, are cut off or lack a table."""
    file = weight_file(path)
    try:
        if INDEX.search(file.name):
            for shard in shards_of(file):
                require_whole(shard)
        elif file.suffix in TORCH_FILES:
            can_be_mapped(file)
        else:
            _require_whole_safetensors(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {unread(error)}") from error


def tokenizer_file(path: Path) -> Path:
    """The ``tokenizer.json`` that is meant: itself, or the one of a folder. Raises ``StartError`` if there is none."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise StartError(f"tokenizer file {file} does not exist; fetch the model again")
    return file


def weight_file(path: Path) -> Path:
    """The file that is opened first for ``path``: itself, or the one index or file of a folder.

    Raises:
        WeightsError: it is absent, may not be read, is of an unknown kind, or stands for a file that is elsewhere.
    """
    try:
        if not path.exists():
            raise WeightsError(f"weight file {path} does not exist; correct its name, or fetch the model again")
        file = _only_file(path) if path.is_dir() else path
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {unread(error)}") from error
    refuse_pointer(file)
    if not (file.suffix in {FILE, *TORCH_FILES} or INDEX.search(file.name)):
        raise WeightsError(f"{path} is neither .safetensors nor .pt/.pth; give a file of one of these kinds")
    return file


def refuse_pointer(file: Path) -> None:
    """Raise ``WeightsError`` if the file may not be read, or is what Git LFS leaves in place of one."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_POINTER_START))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {unread(error)}") from error
    if start == _POINTER_START:
        fix = "run git lfs pull, or fetch it with hiar-download"
        raise WeightsError(f"{file} is a Git LFS pointer, not the file itself; {fix}")


def _only_file(folder: Path) -> Path:
    paths = sorted(folder.iterdir())
    names = {path: _name_of(path) for path in paths if path.suffix == FILE or INDEX.search(path.name)}
    # NAME.fp16 is the same as NAME in another type, so it is taken only where there is no NAME.
    plain = [path for path, name in names.items() if not any(name.startswith(f"{other}.") for other in names.values())]
    indices = [path for path in plain if path.suffix != FILE]
    files = [path for path in plain if path.suffix == FILE]
    if len(indices) == 1:
        return indices[0]
    if len(files) == 1 and not indices:
        return files[0]
    raise WeightsError(
        f"{folder} holds {len(indices)} indices and {len(files)} .safetensors files; "
        "leave one index with its shards there, or one file"
    )


def _name_of(path: Path) -> str:
    """NAME or NAME.VARIANT, of a file, a shard or an index, whichever way it has its variant in its name."""
    index = INDEX.search(path.name)
    if index:
        return path.name[: index.start()] + (index[1] or "")
    return _SHARD.sub("", path.stem)


def shards_of(index: Path) -> list[Path]:
    """The files that an index of shards names. Raises ``WeightsError`` where it is none."""
    try:
        shards = {str(shard) for shard in json.loads(index.read_text())["weight_map"].values()}
    except OSError as error:
        raise WeightsError(f"{index} cannot be read: {unread(error)}") from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is no shard index; fetch it again ({printable(str(error))})") from error
    for shard in sorted(shards):
        if Path(shard).name != shard or not shard.endswith(FILE):
            raise WeightsError(
                f"{index} names a shard that is no {FILE} file of its folder, {printable(shard)}; fetch it again"
            )
    return [index.parent / shard for shard in sorted(shards)]


def can_be_mapped(path: Path) -> bool:
    """Whether tensors lie in the file byte for byte: in a zip archive, unpacked.

    The format of torch before 1.6 is a stream without a table, so it is read whole, with keys that nobody wants. An
    archive that was packed again with compression is unpacked into memory: mapped, its packed bytes would pass for
    weights.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
    if start.startswith(_PICKLE_START):
        return False
    if start != _ZIP_START:
        raise WeightsError(f"{path} was not written by torch.save; fetch it again")
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path} is cut off or damaged, it has no table of contents; fetch it again") from error


def _require_whole_safetensors(file: Path) -> None:
    num_bytes, begin = file.stat().st_size, struct.calcsize(_LENGTH)
    with file.open("rb") as opened:
        start = opened.read(begin)
        table_bytes = struct.unpack(_LENGTH, start)[0] if len(start) == begin else 0
        if not 0 < table_bytes <= min(num_bytes - begin, _MAX_TABLE_BYTES):
            raise WeightsError(f"{file} is cut off or damaged, it has no table of tensors; fetch it again")
        table = opened.read(table_bytes)
    try:
        end = begin + table_bytes + _end_of_last(json.loads(table))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file} is damaged, its table of tensors cannot be read; fetch it again") from error
    if end != num_bytes:
        what = "cut off" if num_bytes < end else "damaged"
        raise WeightsError(f"{file} is {what}: it has {num_bytes} bytes and its table tells of {end}; fetch it again")


def _end_of_last(table: dict[str, Any]) -> int:
    """Bytes of all tensors, which lie one behind the other."""
    return max((int(row["data_offsets"][1]) for name, row in table.items() if name != "__metadata__"), default=0)


def printable(text: str) -> str:
    """The text without anything that would steer a terminal; names come from files of strangers."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
