"""Makes a servable model folder out of training runs.

    python -m training.export --transformer build/training/teacher --folder build/model
    python -m training.export --transformer build/training/student --decoder build/training/decoder \\
        --data build/training/latents build/training/ode_init --folder models/tiny

The transformer is the moving average of a teacher's or a student's run; text encoder and tokenizer are the teacher's.
The manifest records how each part was trained; with ``--before`` also what is recorded of the folder that the runs were
reopened from (``training.reopen``). The folder is loaded back as the server loads it before this ends.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.manifest import MANIFEST_NAME, read_manifest
from engine.model.encoder import load_encoder
from engine.model.text import load_text_encoder, load_tokenizer
from engine.model.weights import load_decoder, load_transformer
from training.autoencoder import DECODER, load_autoencoder
from training.model_folder import Parts, Sizes, write_folder
from training.networks import ROLLOUT, VIDEO, TextToFlow, text_config
from training.run import latest_part, num_steps_done, read_log
from training.teacher import TOKENIZER_FILE

DESCRIPTION = (
    "The small model that ships with the project. It knows a small world of moving shapes, told in sentences like "
    '"A large red circle drifts to the right over a night sky."'
)
SIZE_LIMIT_BYTES = 16 * 2**20
BASE = Path("build/training")
CPU = torch.device("cpu")


def main() -> None:
    """Command line."""
    args = _parse()
    export(args.transformer, args.teacher, args.decoder, args.folder, args.data, args.before)
    size_bytes = load_back(args.folder)
    sys.stdout.write(f"{args.folder}: {size_bytes / 2**20:.1f} MiB, loads strictly\n")


def export(
    transformer_run: Path,
    teacher_run: Path,
    decoder_run: Path,
    folder: Path,
    data: Sequence[Path] = (),
    before: Path | None = None,
) -> None:
    """Write the model folder; ``data`` are runs that made what others learned from, recorded by their names, and
    ``before`` is the model folder whose weights the runs went on from.

    Raises:
        FileNotFoundError: a run has no checkpoint, or ``before`` no manifest.
    """
    tokenizer = load_tokenizer(teacher_run / TOKENIZER_FILE)
    weights = _transformer_weights(transformer_run)
    networks = TextToFlow(tokenizer.get_vocab_size())
    networks.encoder.load_state_dict(latest_part(teacher_run, "average", prefix="module.encoder."))
    networks.transformer.load_state_dict(weights)
    autoencoder = load_autoencoder(decoder_run, CPU)
    parts = Parts(
        transformer=networks.transformer,
        decoder=autoencoder.decoder,
        encoder=autoencoder.encoder,
        text=networks.encoder,
        tokenizer=tokenizer,
    )
    sizes = Sizes(
        transformer=networks.transformer.config,
        rollout=ROLLOUT,
        video=VIDEO,
        decoder=DECODER,
        text=text_config(tokenizer.get_vocab_size()),
    )
    runs = {run.name: run for run in data}
    runs |= {"transformer": transformer_run, "text": teacher_run, "decoder": decoder_run}
    training: dict[str, Any] = {
        "weights": "trained",
        "data": "scenes drawn and described by training.world, training.render and training.captions",
        **{part: history(run) for part, run in runs.items()},
    }
    if before is not None:
        training["before"] = json.loads((before / MANIFEST_NAME).read_text())["training"]
    write_folder(folder, parts, sizes, DESCRIPTION, training, torch.float16)


def history(run: Path) -> dict[str, Any]:
    """How a run went, by its log: every command that continued it, seed, steps, time and machines.

    Commands name folders as the default options do, wherever the runs really were.
    """
    lines = read_log(run)
    starts = [line for line in lines if line.get("event") == "start"]
    parent = re.compile(rf"(?<![\w./-]){re.escape(str(run.parent))}(?=/|\s|$)")
    return {
        "commands": list(dict.fromkeys(parent.sub(str(BASE), start["command"]) for start in starts)),
        "seed": starts[0]["seed"],
        "steps": num_steps_done(run),
        "hours": round(max(line.get("seconds", 0) for line in lines) / 3600, 2),
        "hardware": sorted({start["hardware"] for start in starts}),
    }


def load_back(folder: Path) -> int:
    """Load every part as the server does; returns the folder's size in bytes.

    Raises:
        StartError: the manifest does not read.
        WeightsError: a part does not fit.
        ValueError: the folder is too large for the repository.
    """
    manifest = read_manifest(folder)
    assert manifest.decoder and manifest.decoder_file and manifest.text and manifest.text_file
    assert manifest.tokenizer_file and manifest.encoder and manifest.encoder_file
    load_transformer(manifest.transformer, manifest.transformer_file, CPU)
    load_decoder(manifest.decoder, manifest.decoder_file, CPU)
    load_encoder(manifest.encoder, manifest.encoder_file, CPU)
    load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, CPU)
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    if size_bytes > SIZE_LIMIT_BYTES:
        raise ValueError(f"{folder} has {size_bytes} bytes, at most {SIZE_LIMIT_BYTES} are wanted")
    return size_bytes


def _transformer_weights(run: Path) -> dict[str, Any]:
    """The transformer of a run that averages it alone, or beside a text encoder."""
    return latest_part(run, "average", prefix="module.transformer.") or latest_part(run, "average", prefix="module.")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer", type=Path, default=BASE / "teacher", help="run folder (%(default)s)")
    parser.add_argument("--teacher", type=Path, default=BASE / "teacher", help="run folder (%(default)s)")
    parser.add_argument("--decoder", type=Path, default=BASE / "autoencoder", help="run folder (%(default)s)")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="other folders with a log to record")
    parser.add_argument("--before", type=Path, help="model folder that the runs were reopened from, for its record")
    parser.add_argument("--folder", type=Path, default=Path("build/model"), help="to write (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
