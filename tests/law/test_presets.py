"""The table of presets says what each repository's own loop was recorded with."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine.config import Order, RolloutConfig, SinkPositions, Transition
from engine.law.presets import PRESETS, UNKNOWN, Layout, Preset, RolloutChanges

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FIRST_ROLLOUT = {
    "hiar-options": "extension",
    "self-forcing": "window_21",
    "longlive": "plain",
    "longlive-infinity": "plain",
}
"""Of a case, the roll-out with the repository's own settings, where it is not called text."""
TINY_WINDOW = {"hiar-options"}
"""Cases whose window is smaller than the repository's."""


def recorded(preset: Preset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The case's description, and its roll-out with the repository's own settings."""
    assert preset.golden is not None
    case: dict[str, Any] = json.loads((GOLDEN / preset.golden / "config.json").read_text())
    return case, case["rollouts"][FIRST_ROLLOUT.get(preset.golden, "text")]


def steps_of(values: list[int] | None) -> tuple[int, ...] | None:
    """Without the final 0 that some repositories write."""
    return None if values is None else tuple(value for value in values if value)


@pytest.mark.parametrize("preset", [one for one in PRESETS.values() if one.golden], ids=lambda one: one.name)
def test_a_roll_out_is_that_of_the_recorded_loop(preset: Preset) -> None:
    _, told = recorded(preset)
    context = {
        (Order.BLOCK_FIRST, "clean"): False,
        (Order.STEP_FIRST, "clean"): True,
        (Order.STEP_FIRST, "next_level"): False,
    }
    expected = RolloutConfig(
        denoising_steps=steps_of(told["denoising_steps"]) or (),
        raw_steps=told["steps_are"] == "raw",
        first_block_steps=steps_of(told["first_block_denoising_steps"]),
        timestep_shift=told["timestep_shift"],
        latent_frames_per_block=told["frames_per_block"],
        window_latent_frames=21 if preset.golden in TINY_WINDOW else told["window_frames"],
        sink_latent_frames=told["sink_frames"],
        sink_positions=SinkPositions(told["positions"]),
        context_timestep=told["context_timestep"],
        clean_context=context[Order(told["order"]), told["cached_context"]],
        transition={"renoise": Transition.RE_NOISE, "ode": Transition.ODE}[told["transition"]],
        order=Order(told["order"]),
        prompt_change=preset.rollout.prompt_change,
    )
    assert preset.rollout == expected


@pytest.mark.parametrize("preset", [one for one in PRESETS.values() if one.golden], ids=lambda one: one.name)
def test_files_keys_and_source_are_those_of_the_recorded_case(preset: Preset) -> None:
    case, _ = recorded(preset)
    told, reference = case["checkpoint"], case["reference"]
    assert told["file"].endswith(preset.file)
    # HiAR's own loop takes the average where there is one, which is what no key means.
    assert preset.transformer_key == (None if preset.name == "hiar" else told["key"])
    lora = case["lora"]
    assert [(one.file, one.key) for one in preset.loras] == ([(lora["file"], lora["key"])] if lora else [])
    source = preset.source
    assert (source.repository, source.commit) == (reference["repository"], reference["commit"])
    assert source.config is not None and reference["config"].startswith(source.config)


def test_every_recorded_checkpoint_is_a_preset() -> None:
    cases = {
        folder.name for folder in GOLDEN.iterdir() if "checkpoint" in json.loads((folder / "config.json").read_text())
    }
    assert {preset.golden for preset in PRESETS.values()} - {None} == cases


def test_rows_do_not_contradict_each_other() -> None:
    assert all(name == preset.name for name, preset in PRESETS.items())
    telling = [(one.hub_id, one.file) for one in PRESETS.values() if not one.must_be_named]
    assert len(set(telling)) == len(telling)
    for preset in PRESETS.values():
        assert preset.file.endswith(".pt") == (preset.layout is Layout.ORIGINAL)
        assert preset.licence and (preset.source.commit or preset.golden is None)
        assert not preset.file.startswith(("/", "."))
    assert PRESETS["hiar"].licence == "MIT" and PRESETS["causvid"].licence == UNKNOWN


def test_changes_are_applied_and_told() -> None:
    changes = RolloutChanges(
        denoising_steps=(1000, 500), timestep_shift=4.5, window_latent_frames=9, order=Order.BLOCK_FIRST
    )
    changed = changes.applied(RolloutConfig())
    assert (changed.denoising_steps, changed.timestep_shift, changed.window_latent_frames) == ((1000, 500), 4.5, 9)
    assert changed.order is Order.BLOCK_FIRST
    assert str(changes) == "--steps 1000,500 --shift 4.5 --window 9 --order block_first"
    assert RolloutChanges().applied(changed) == changed and str(RolloutChanges()) == ""
    assert str(RolloutChanges(sink_latent_frames=0)) == "--sink 0"
    assert {field.name for field in fields(RolloutChanges)} <= {field.name for field in fields(RolloutConfig)}
