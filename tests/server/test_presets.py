"""``hiar-server --list-presets``, and a plan of one that is not downloaded."""

import pytest

from engine import PRESETS
from server.main import main
from tests.server.plan_table import planned
from tests.server.preset_tables import DOCUMENT, PLAN_MARKS, PRESET_MARKS, plan_table, plans, preset_table, with_table

WRITE = "run: python -m tests.server.preset_tables"


def test_the_list_has_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--list-presets", "--model", "/nowhere"])
    head, *rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert end.value.code == 0 and head.split()[:3] == ["preset", "hub", "id"]
    assert [row.split()[0] for row in rows] == list(PRESETS)
    for row, preset in zip(rows, PRESETS.values(), strict=True):
        rollout = preset.rollout
        window = f"{rollout.window_latent_frames}/{rollout.sink_latent_frames}"
        steps = ",".join(map(str, rollout.denoising_steps))
        assert all(f" {text} " in row for text in (preset.hub_id, rollout.order, steps, window))
        assert row.endswith(preset.licence)
    assert "1000,757,522 raw" in rows[-1] and "1000,500 (1000,750,500,250 in the first block)" in "\n".join(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["self-forcing", "longlive", "one-forcing"])
def test_a_preset_is_planned_for_before_it_is_there(name: str) -> None:
    found = planned(["--preset", name], 1, "h100-80", "--max-videos 1")
    assert found.status == 0 and found.text.startswith(f"{name} on 1 x h100-80") and "it fits" in found.text
    assert f"roll-out of preset {name}\n" in found.text


def test_the_documentation_has_every_preset() -> None:
    text = DOCUMENT.read_text()
    assert with_table(text, PRESET_MARKS, preset_table()) == text, WRITE


@pytest.mark.slow
def test_the_plans_of_the_documentation_are_what_the_command_says() -> None:
    text = DOCUMENT.read_text()
    assert with_table(text, PLAN_MARKS, plan_table(plans())) == text, WRITE
