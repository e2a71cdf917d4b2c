"""Each preset starts by one command from the files that it is published as, with a tiny student, and makes a video.

The decoder and the text encoder have their true shapes, since these layouts know no others; they hold zeros, which take
no place on the disk.
"""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.true_shapes.folder import make_folder
from benchmarks.true_shapes.names import diffusers_transformer, transformer_shapes
from engine.config import TransformerConfig
from engine.law.presets import PRESETS, Layout, Preset
from engine.machine import free_host_bytes

ROOT = Path(__file__).parents[2]
NEEDED_BYTES = 14 * 10**9
LIMIT_S = 240.0
STUDENT = TransformerConfig(dim=96, ffn_dim=64, num_heads=2, num_layers=2, text_dim=4096, text_len=512)
RANK = 4
FLAGS = ("--port", "0", "--devices", "cpu", "--sizes", "64x64", "--dtype", "bfloat16", "--max-videos", "1")
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, Path]:
    """A folder in each layout, all but the student."""
    if free_host_bytes() < NEEDED_BYTES:
        pytest.skip(f"{NEEDED_BYTES / 1e9:.0f} GB of free memory are needed")
    folders = {}
    for layout in Layout:
        folders[layout] = tmp_path_factory.mktemp("bases") / layout
        make_folder(folders[layout], layout=layout, say=lambda _: None)
    (folders[Layout.ORIGINAL] / "hiar.pt").unlink()
    shutil.rmtree(folders[Layout.DIFFUSERS] / "transformer")
    (folders[Layout.DIFFUSERS] / "hiar.json").unlink()
    return folders


def numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}


def make_student(folder: Path, preset: Preset) -> None:
    shapes = transformer_shapes(STUDENT)
    sizes = {key: getattr(STUDENT, key) for key in ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "in_dim")}
    if preset.layout == Layout.DIFFUSERS:
        (folder / "transformer").mkdir()
        tensors = numbers(diffusers_transformer(shapes))
        save_file(tensors, folder / "transformer" / "diffusion_pytorch_model.safetensors")
        config = {
            "num_attention_heads": STUDENT.num_heads,
            "attention_head_dim": STUDENT.head_dim,
            "ffn_dim": STUDENT.ffn_dim,
            "num_layers": STUDENT.num_layers,
            "in_channels": STUDENT.in_dim,
        }
        (folder / "transformer" / "config.json").write_text(json.dumps(config))
        return
    prefix = "model._fsdp_wrapped_module." if preset.transformer_key == "generator_ema" else "model."
    student = {prefix + name: tensor for name, tensor in numbers(shapes).items()}
    file = folder / preset.file
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({preset.transformer_key or "generator_ema": student}, file)
    (folder / "config.json").write_text(json.dumps(sizes))
    for lora in preset.loras:
        module = "base_model.model.blocks.0.self_attn.q"
        halves = {f"{module}.lora_A.weight": (RANK, STUDENT.dim), f"{module}.lora_B.weight": (STUDENT.dim, RANK)}
        torch.save({lora.key: numbers(halves)}, folder / lora.file)


def make_model(folder: Path, preset: Preset, base: Path) -> None:
    for file in base.rglob("*"):
        link = folder / file.relative_to(base)
        if file.is_file() and not file.name.startswith("."):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    (folder / "config.json").unlink(missing_ok=True)
    make_student(folder, preset)


@contextmanager
def serving(*flags: str) -> Iterator[tuple[str, list[str]]]:
    """The server's address, and what it logged until it was ready."""
    command = [sys.executable, "-c", "from server.main import main; main()", *FLAGS, *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            log: list[str] = []
            assert process.stderr is not None
            for line in process.stderr:
                log.append(line.rstrip())
                if " ready" in line or "engine is ready" in line:
                    break
            found = [re.search(r"listening on (\S+)", line) for line in log]
            urls = [match[1] for match in found if match is not None]
            assert urls, "\n".join(log)
            yield urls[0], log
        finally:
            process.terminate()
            process.stderr.close() if process.stderr else None
            process.wait()


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_starts_by_one_command_and_makes_a_video(name: str, bases: dict[Layout, Path], tmp_path: Path) -> None:
    preset = PRESETS[name]
    model = tmp_path / name
    make_model(model, preset, bases[preset.layout])
    with serving("--model", str(model), "--preset", name) as (url, log):
        assert any(f"preset {name}" in line for line in log), "\n".join(log)
        answer = httpx.post(
            f"{url}/v1/generate", json={"prompt": "a fox", "seconds": 1.0, "pace": "fast"}, timeout=LIMIT_S
        )
    assert answer.status_code == 200, answer.text
    with av.open(io.BytesIO(answer.content)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 16
