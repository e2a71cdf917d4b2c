"""A video as its reader sees it: what came, and when."""

import time
from dataclasses import dataclass, field


@dataclass
class Video:
    """Blocks in the order in which they came."""

    began_s: float = field(default_factory=time.monotonic)
    blocks: list[bytes] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    """Of each block."""
    at_s: list[float] = field(default_factory=list)
    """When each block came, since the request."""

    def take(self, data: bytes, num_frames: int) -> None:
        """The next block has come."""
        self.blocks.append(data)
        self.frames.append(num_frames)
        self.at_s.append(time.monotonic() - self.began_s)

    @property
    def num_frames(self) -> int:
        """Of all blocks."""
        return sum(self.frames)

    @property
    def steady_rate(self) -> float:
        """Frames a second after the first block; 0 with fewer than two blocks."""
        if len(self.at_s) < 2:
            return 0.0
        return sum(self.frames[1:]) / (self.at_s[-1] - self.at_s[0])

    @property
    def numbers(self) -> dict[str, float]:
        """What a check tells of it."""
        first_s, all_s = (self.at_s[0], self.at_s[-1]) if self.at_s else (0.0, 0.0)
        return {
            "blocks": len(self.blocks),
            "frames": self.num_frames,
            "first_block_s": first_s,
            "video_s": all_s,
            "frames_per_s": self.steady_rate,
            "bytes": sum(map(len, self.blocks)),
        }

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.at_s:
            return "no block came"
        return (
            f"first block after {self.at_s[0]:.2f} s, then {self.steady_rate:.1f} frames/s; "
            f"{self.num_frames} frames in {self.at_s[-1]:.1f} s"
        )
