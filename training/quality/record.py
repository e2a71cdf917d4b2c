"""What was measured so far, kept in a folder so that a run that was cut off goes on where it stopped."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.quality.films import Film
from training.quality.measures import Measures
from training.quality.sources import Entry
from training.world import Split


@dataclass(frozen=True, kw_only=True)
class Video:
    """All measures of one video."""

    entry: str
    film: str
    split: Split
    repeat: int
    windows: tuple[Measures, ...]
    """Of stretches of equal length, in order."""
    flicker: float | None
    made_in_s: float


@dataclass
class Record:
    """The videos of one run, on disk line by line."""

    folder: Path
    videos: dict[tuple[str, str], Video] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = self._file.read_text() if self._file.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        self._file.write_text(whole)  # without a line that was cut off
        for line in whole.splitlines():
            self._take(_video_from(json.loads(line)))

    @property
    def _file(self) -> Path:
        return self.folder / "videos.jsonl"

    def has(self, entry: Entry, film: Film) -> bool:
        """Whether this video is measured."""
        return (entry.name, film.key) in self.videos

    def add(self, video: Video) -> None:
        """Keep a video's measures."""
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(video)) + "\n")
        self._take(video)

    def of(self, entry: Entry, split: Split) -> list[Video]:
        """The videos of an entry."""
        return [video for video in self.videos.values() if video.entry == entry.name and video.split is split]

    def _take(self, video: Video) -> None:
        self.videos[video.entry, video.film] = video


def digest(entries: Sequence[Entry], *settings: object) -> str:
    """A short name for a run: it changes with every file of its models and with its settings."""
    sha = hashlib.sha256(repr(settings).encode())
    for entry in entries:
        sha.update(f"{entry.name} {entry.way}".encode())
        for file in sorted(path for path in entry.folder.rglob("*") if path.is_file()):
            sha.update(file.name.encode())
            sha.update(file.read_bytes())
    return sha.hexdigest()[:12]


def _video_from(values: dict[str, Any]) -> Video:
    windows = tuple(Measures(**window) for window in values.pop("windows"))
    return Video(**{**values, "split": Split(values["split"]), "windows": windows})
