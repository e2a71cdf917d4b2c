"""Which dictionaries a trainer's file holds, from its list of objects: nothing is unpickled, no tensor is read."""

import pickletools
import zipfile
from pathlib import Path

STUDENT_KEYS = frozenset({"generator", "generator_ema"})
_LIST_NAME, _MOST_LIST_BYTES = "/data.pkl", 64 * 2**20


def student_keys(file: Path) -> frozenset[str] | None:
    """Those of ``STUDENT_KEYS`` that a ``.pt`` file names; None where its list cannot be read so.

    The list is walked as the sequence of words it is. A word may stand for an empty dictionary: the loader tells.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entry = next((one for one in archive.infolist() if one.filename.endswith(_LIST_NAME)), None)
            if entry is None or entry.file_size > _MOST_LIST_BYTES:
                return None
            words = {word for _, word, _ in pickletools.genops(archive.read(entry)) if isinstance(word, str)}
    except (OSError, zipfile.BadZipFile, ValueError):
        return None
    return STUDENT_KEYS & words
