"""Makes training runs of a served model folder, so that training can go on from what ships.

    python -m training.reopen
    python -m training.ode_init --teacher build/training/shipped --autoencoder build/training/shipped-autoencoder ...

The inverse of ``training.export``. ``shipped`` holds transformer, text encoder and tokenizer, and serves as
``--teacher``, ``--student`` or ``--start`` of later steps; ``shipped-autoencoder`` holds the decoder and the encoder,
which is fitted again and comes out the same. Weights are those that ship, in half precision.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.config import Manifest, require
from engine.manifest import read_manifest
from engine.model.text import load_encoder, load_tokenizer
from engine.model.weights import load_transformer, read_tensors
from training.autoencoder import DECODER, Autoencoder, fit, fitted_clips
from training.networks import TRANSFORMER, TextToFlow
from training.run import CHECKPOINT_FILE, Average, add_line, start_line
from training.student import TOKENIZER_FILE

CPU = torch.device("cpu")
SEED = 0
AVERAGE_DECAY = 0.9
"""Of the moving average that a run keeps; here it is the weights themselves."""


def main() -> None:
    """Command line."""
    args = _parse()
    student, autoencoder = args.folder / "shipped", args.folder / "shipped-autoencoder"
    reopen(args.model, student, autoencoder)
    sys.stdout.write(f"{args.model} can be trained on from {student} and {autoencoder}\n")


def reopen(model: Path, student: Path, autoencoder: Path) -> None:
    """Write both runs. Raises ``StartError`` where there is no model, ``ValueError`` where it has another form."""
    manifest = read_manifest(model)
    fits = manifest.transformer == TRANSFORMER and manifest.decoder == DECODER
    require(fits, f"{model} is not of the sizes that are trained now (training/networks.py)")
    _write(student, _network(manifest))
    assert manifest.tokenizer_file is not None
    shutil.copyfile(manifest.tokenizer_file, student / TOKENIZER_FILE)
    _write(autoencoder, _autoencoder(manifest))


def _network(manifest: Manifest) -> TextToFlow:
    assert manifest.text is not None and manifest.text_file is not None and manifest.tokenizer_file is not None
    network = TextToFlow(load_tokenizer(manifest.tokenizer_file).get_vocab_size())
    network.transformer.load_state_dict(load_transformer(TRANSFORMER, manifest.transformer_file, CPU).state_dict())
    encoder = load_encoder(manifest.text, manifest.text_file, CPU, torch.float32)
    network.encoder.load_state_dict(encoder.state_dict())
    return network


def _autoencoder(manifest: Manifest) -> Autoencoder:
    assert manifest.decoder_file is not None
    both = Autoencoder()
    fit(both.encoder, fitted_clips())
    both.decoder.load_state_dict(read_tensors(manifest.decoder_file))
    return both


def _write(folder: Path, module: nn.Module) -> None:
    """A checkpoint that later steps can start from."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {"average": Average(module, AVERAGE_DECAY).state_dict()}
    torch.save({"step": 0, "seconds": 0.0, "seed": SEED, "parts": parts}, folder / CHECKPOINT_FILE)
    add_line(folder, start_line(0, SEED))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"), help="served folder (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("build/training"), help="for both runs (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
