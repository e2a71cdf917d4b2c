"""A model folder made from runs loads as the server loads it and holds the runs' weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import WeightsError
from engine.manifest import read_manifest
from engine.model.text import load_text_encoder
from engine.model.weights import load_decoder, load_transformer
from training import export
from training.autoencoder import DECODER, Autoencoder
from training.captions import corpus
from training.networks import TRANSFORMER, TextToFlow
from training.run import Average, Run, add_line, start_line
from training.teacher import TOKENIZER_FILE
from training.tokenizer import save_tokenizer, train_tokenizer

CPU = torch.device("cpu")


def keep(folder: Path, network: nn.Module) -> nn.Module:
    """A run folder whose average is the network."""
    average = Average(network, 0.9)
    run = Run(folder, {"average": average}, seed=3)
    for _ in run.steps(1):
        run.log(loss=1.0)
    return network


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    base = tmp_path_factory.mktemp("runs")
    tokenizer = train_tokenizer(corpus(50, seed=1))
    save_tokenizer(tokenizer, base / "teacher" / TOKENIZER_FILE)
    keep(base / "teacher", TextToFlow(tokenizer.get_vocab_size()))
    keep(base / "student", TextToFlow(tokenizer.get_vocab_size()))
    keep(base / "decoder", Autoencoder())
    return base


@pytest.mark.slow
@pytest.mark.parametrize("transformer", ["teacher", "student"])
def test_the_folder_loads_strictly_and_holds_the_weights(runs: Path, tmp_path: Path, transformer: str) -> None:
    export.export(runs / transformer, runs / "teacher", runs / "decoder", tmp_path)
    assert export.load_back(tmp_path) < 16 * 2**20
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in tmp_path.iterdir())
    manifest = read_manifest(tmp_path)
    assert manifest.transformer == TRANSFORMER and manifest.decoder == DECODER
    assert manifest.text is not None and manifest.text_file is not None
    assert manifest.tokenizer_file is not None and manifest.decoder_file is not None
    trained = torch.load(runs / transformer / "checkpoint.pt", weights_only=True)["parts"]["average"]
    loaded = load_transformer(manifest.transformer, manifest.transformer_file, CPU).state_dict()
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, trained[f"module.transformer.{name}"], atol=1e-3, rtol=1e-3)
    text = load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, CPU)
    assert text.embed("A red circle drifts.").shape == (len(text.tokens("A red circle drifts.")), 128)
    decoder = load_decoder(manifest.decoder, manifest.decoder_file, CPU)
    assert decoder.decode(torch.zeros(2, 12, 2, 2), None)[0].shape == (5, 3, 16, 16)


def test_the_manifest_says_how_it_was_trained(runs: Path, tmp_path: Path) -> None:
    command = f"learn --from {runs}/clips --at {runs} --to {runs}-else --and /else{runs}"
    add_line(runs / "teacher", start_line(0, 3) | {"command": command})
    export.export(runs / "student", runs / "teacher", runs / "decoder", tmp_path, [runs / "student"])
    training = json.loads((tmp_path / "manifest.json").read_text())["training"]
    assert training["weights"] == "trained" and "training.world" in training["data"]
    cleaned = f"learn --from build/training/clips --at build/training --to {runs}-else --and /else{runs}"
    assert training["text"]["commands"][-1] == cleaned
    for part in ("transformer", "text", "decoder", "student"):
        assert training[part]["seed"] == 3 and training[part]["steps"] == 1
        assert training[part]["commands"] and training[part]["hardware"]


def test_the_record_of_the_model_before_is_kept(runs: Path, tmp_path: Path) -> None:
    first, then, last = (tmp_path / name for name in ("first", "then", "last"))
    export.export(runs / "student", runs / "teacher", runs / "decoder", first, [runs / "student"])
    export.export(runs / "teacher", runs / "teacher", runs / "decoder", then, before=first)
    export.export(runs / "teacher", runs / "teacher", runs / "decoder", last, before=then)
    of_first, of_then, of_last = (
        json.loads((folder / "manifest.json").read_text())["training"] for folder in (first, then, last)
    )
    assert "before" not in of_first and "student" in of_first
    assert of_then["before"] == of_first and of_last["before"] == of_then


def test_a_folder_that_does_not_fit_is_refused(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export.export(runs / "teacher", runs / "teacher", runs / "decoder", tmp_path)
    monkeypatch.setattr(export, "SIZE_LIMIT_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 are wanted"):
        export.load_back(tmp_path)
    (tmp_path / "decoder.safetensors").write_bytes((tmp_path / "text_encoder.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="does not fit"):
        export.load_back(tmp_path)
