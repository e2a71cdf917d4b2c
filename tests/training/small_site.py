"""Folders that the commands from teacher to student start from, with networks of a few thousand random weights."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.autoencoder import DECODER, SIZE_PX, Autoencoder
from training.networks import TRANSFORMER, TextToFlow
from training.run import CHECKPOINT_FILE, Average
from training.tokenizer import save_tokenizer, world_tokenizer

SMALL = replace(TRANSFORMER, dim=24, ffn_dim=32, num_heads=2, num_layers=2, freq_dim=16)
SIDE = SIZE_PX // 8


class Site:
    """One folder for each run."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self._patch = base, monkeypatch
        monkeypatch.setattr("training.networks.TRANSFORMER", SMALL)
        monkeypatch.setattr("training.student.PROMPTS", ("A red circle stays still at night.",))
        monkeypatch.setattr("training.run.draw_curves", lambda folder: None)
        torch.manual_seed(1)
        self.teacher, self.autoencoder, self.latents = base / "teacher", base / "autoencoder", base / "latents"
        tokenizer = world_tokenizer(0, num_sentences=50)
        save_tokenizer(tokenizer, self.teacher / "tokenizer.json")
        network = TextToFlow(tokenizer.get_vocab_size())
        torch.nn.init.normal_(network.transformer.head.head.weight, std=0.1)
        torch.nn.init.normal_(network.transformer.time_projection[1].weight, std=0.02)
        write_checkpoint(self.teacher, Average(network, 0.9))
        write_checkpoint(self.autoencoder, Average(Autoencoder(), 0.9))
        self._write_latents()

    def run(self, command: Any, name: str, *options: str) -> Path:
        """Run a training command in the folder ``name``."""
        folder = self.base / name
        common = ["--folder", str(folder), "--teacher", str(self.teacher), "--threads", "1"]
        self._patch.setattr(sys, "argv", ["command", *common, *options])
        command.main()
        return folder

    def _write_latents(self) -> None:
        self.latents.mkdir()
        rng = np.random.default_rng(4)
        clips = rng.standard_normal((3, 9, DECODER.latent_channels, SIDE, SIDE)).astype(np.float16)
        np.save(self.latents / "latents.npy", clips)
        lines = [json.dumps(["A blue ring stays still on sand.", "A ring."])] * len(clips)
        (self.latents / "clips.jsonl").write_text("\n".join(lines) + "\n")


def write_checkpoint(folder: Path, average: Average) -> None:
    folder.mkdir(exist_ok=True)
    torch.save({"step": 1, "parts": {"average": average.state_dict()}}, folder / CHECKPOINT_FILE)


def parts(folder: Path) -> dict[str, Any]:
    """What a run's checkpoint holds."""
    content: dict[str, Any] = torch.load(folder / CHECKPOINT_FILE, weights_only=True)["parts"]
    return content


def logged(folder: Path, name: str) -> list[float]:
    """A quantity of a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def same(one: object, other: object) -> bool:
    """Whether two nests of tensors and values are equal, bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    return one == other
