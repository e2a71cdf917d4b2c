"""The published ``taew2_1`` checkpoint: its names, shapes and counts load into the tiny decoder, and no others do.

The tensors are random; names and shapes are written down from the ``vae`` spec, sections 5.3 to 5.5, not from our code.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.config import DecoderConfig, DecoderKind
from engine.errors import WeightsError
from engine.model.tiny_vae import TinyVae
from engine.model.weights import load_decoder

CPU = torch.device("cpu")
PUBLISHED = DecoderConfig(kind=DecoderKind.TINY)
Shapes = dict[str, tuple[int, ...]]


def memory_block(name: str, width: int) -> Shapes:
    shapes: Shapes = {f"{name}.conv.0.weight": (width, 2 * width, 3, 3)}
    shapes |= {f"{name}.conv.{index}.weight": (width, width, 3, 3) for index in (2, 4)}
    return shapes | {f"{name}.conv.{index}.bias": (width,) for index in (0, 2, 4)}


def decoder_shapes() -> Shapes:
    shapes: Shapes = {"decoder.1.weight": (256, 16, 3, 3), "decoder.1.bias": (256,)}
    for first, width in ((3, 256), (9, 128), (15, 64)):
        for index in range(first, first + 3):
            shapes |= memory_block(f"decoder.{index}", width)
    shapes |= {
        "decoder.7.conv.weight": (256, 256, 1, 1),
        "decoder.8.weight": (128, 256, 3, 3),
        "decoder.13.conv.weight": (256, 128, 1, 1),
        "decoder.14.weight": (64, 128, 3, 3),
        "decoder.19.conv.weight": (128, 64, 1, 1),
        "decoder.20.weight": (64, 64, 3, 3),
        "decoder.22.weight": (3, 64, 3, 3),
        "decoder.22.bias": (3,),
    }
    return shapes


def encoder_shapes() -> Shapes:
    shapes: Shapes = {"encoder.0.weight": (64, 3, 3, 3), "encoder.0.bias": (64,)}
    for first, merged_width in ((2, 128), (7, 128), (12, 64)):
        shapes |= {f"encoder.{first}.conv.weight": (64, merged_width, 1, 1)}
        shapes |= {f"encoder.{first + 1}.weight": (64, 64, 3, 3)}
        for index in range(first + 2, first + 5):
            shapes |= memory_block(f"encoder.{index}", 64)
    return shapes | {"encoder.17.weight": (16, 64, 3, 3), "encoder.17.bias": (16,)}


def parameters(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = decoder_shapes() | encoder_shapes()
    return {name: (torch.randn(shape, generator=generator) / 32).half() for name, shape in shapes.items()}


def save(checkpoint: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(checkpoint, path)
    else:
        torch.save(checkpoint, path)
    return path


def test_the_table_has_the_published_number_of_parameters() -> None:
    assert parameters(decoder_shapes()) == 9_844_611
    assert parameters(encoder_shapes()) == 1_470_928


def test_our_names_are_the_checkpoints() -> None:
    with torch.device("meta"):
        ours = TinyVae(PUBLISHED, with_encoder=True).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == decoder_shapes() | encoder_shapes()


@pytest.mark.parametrize("name", ["taew2_1.pth", "taew2_1.safetensors"])
def test_both_files_load_and_decode(checkpoint: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    decoder = load_decoder(PUBLISHED, save(checkpoint, tmp_path / name), CPU)
    assert isinstance(decoder, TinyVae)
    loaded = decoder.state_dict()
    assert loaded.keys() == decoder_shapes().keys()
    assert all(torch.equal(tensor, checkpoint[name].float()) for name, tensor in loaded.items())
    with torch.inference_mode():
        pixels_TCHW, _ = decoder.decode(torch.randn(1, 16, 2, 2), None)
    assert pixels_TCHW.shape == (1, 3, 16, 16)


def test_another_tiny_decoder_is_refused(checkpoint: dict[str, Tensor], tmp_path: Path) -> None:
    other = checkpoint | {
        "decoder.1.weight": torch.zeros(256, 48, 3, 3),
        "decoder.22.weight": torch.zeros(12, 64, 3, 3),
    }
    path = save(other | {"decoder.22.bias": torch.zeros(12)}, tmp_path / "taew2_1.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_decoder(PUBLISHED, path, CPU)
    assert "decoder.1.weight is [256, 48, 3, 3], needed [256, 16, 3, 3]" in str(caught.value)
    assert "decoder.22.weight is [12, 64, 3, 3], needed [3, 64, 3, 3]" in str(caught.value)


def test_a_lost_and_a_stray_tensor_are_named(checkpoint: dict[str, Tensor], tmp_path: Path) -> None:
    wrong = {name: tensor for name, tensor in checkpoint.items() if name != "decoder.13.conv.weight"}
    path = save(wrong | {"decoder.23.weight": torch.zeros(1)}, tmp_path / "taew2_1.pth")
    with pytest.raises(WeightsError, match=r"1 missing: decoder\.13\.conv\.weight; 1 unexpected: decoder\.23\.weight"):
        load_decoder(PUBLISHED, path, CPU)
