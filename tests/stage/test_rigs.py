"""What a worker computes with, by what its config asks for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.config import Order
from engine.engine_config import EngineConfig, Fault, FaultKind, Rehearsal
from engine.errors import StartError
from engine.manifest import read_manifest
from engine.stage.noise import KeyedNoise
from engine.stage.progress import Progress
from engine.stage.rigs import Real, Rehearsed, Replayed, Rig, rig_of

TINY = EngineConfig(manifest=read_manifest(Path("models/tiny")))
CPU = torch.device("cpu")
SILENT = Progress(lambda told: None)
FAULT = Fault(kind=FaultKind.NAN, stage=1, block=2, seed=3)
REHEARSAL = Rehearsal(pass_s=0.5, decode_s=0.25, faults=(FAULT,))
SHAPE = (3, 4, 2, 2)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Noise of two blocks, and two rows of a padded prompt."""
    rows = torch.zeros(4, 8)
    rows[:2] = 1.5
    noise = torch.arange(2 * 48, dtype=torch.float32).view(6, 4, 2, 2)
    path = tmp_path / "recording.safetensors"
    save_file({"context": rows, "initial_noise": noise, "renoise.0": noise + 1000}, path)
    return path


def test_a_real_rig_has_the_models_layers_and_keyed_noise() -> None:
    rig = rig_of(TINY)
    assert type(rig) is Real and rig.faults == ()
    assert rig.page_layers == TINY.manifest.transformer.num_layers > 1
    assert torch.equal(rig.noise(CPU)(5, 1, 2, SHAPE), KeyedNoise(CPU)(5, 1, 2, SHAPE))


def test_a_replay_takes_noise_and_prompt_from_the_file_and_the_rest_from_the_model(recording: Path) -> None:
    rig = rig_of(replace(TINY, recording_file=recording))
    assert type(rig) is Replayed and rig.page_layers == TINY.manifest.transformer.num_layers
    noise, prompts = rig.noise(CPU), rig.prompts(CPU, SILENT)
    assert noise(5, 1, 0, SHAPE).flatten()[0] == 48 and noise(6, 1, 1, SHAPE).flatten()[0] == 1048
    assert prompts is not None and torch.equal(prompts.embed("whatever"), torch.full((2, 8), 1.5))


@pytest.mark.parametrize(("order", "passes"), [(Order.STEP_FIRST, (2, 4, 6, 8)), (Order.BLOCK_FIRST, (2, 3, 4, 5))])
def test_a_rehearsal_knows_its_costs_and_reads_no_file(order: Order, passes: tuple[int, ...]) -> None:
    manifest = replace(
        TINY.manifest, rollout=replace(TINY.manifest.rollout, order=order), transformer_file=Path("none")
    )
    rig: Rig = rig_of(replace(TINY, manifest=manifest, rehearsal=REHEARSAL))
    assert type(rig) is Rehearsed and rig.faults == (FAULT,) and rig.page_layers == 1
    network, decoder, prompts = rig.network(CPU, SILENT), rig.decoder(CPU, SILENT), rig.prompts(CPU, SILENT)
    costs = rig.costs(CPU, network, decoder, SILENT)
    assert costs.denoise_s == tuple(0.5 * count for count in passes) and costs.decode_s == 0.25
    assert prompts is not None and prompts.embed("whatever").shape == (1, manifest.transformer.text_dim)


def test_a_rehearsal_and_a_replay_at_once_are_refused(recording: Path) -> None:
    with pytest.raises(StartError, match="rehearsal"):
        rig_of(replace(TINY, recording_file=recording, rehearsal=REHEARSAL))
