"""``hiar-server --plan``: from headers alone, with exit status, and the same in the documentation."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.true_shapes.folder import make_folder
from engine import forecast
from server.main import main
from tests.server.plan_table import DOCUMENT, SITES, Planned, plans, run, with_table

ROOT = Path(__file__).parents[2]
SECONDS = 30.0
"""More than a plan may take on a busy laptop."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published model's folder, but for its numbers."""
    folder = tmp_path_factory.mktemp("models") / "hiar"
    make_folder(folder, say=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def found(model: Path) -> list[Planned]:
    return plans(model)


def test_the_table_of_the_documentation_is_what_the_command_says(found: list[Planned]) -> None:
    text = DOCUMENT.read_text()
    assert with_table(text, found) == text, "run: python -m tests.server.plan_table"


def test_what_is_advised_fits_and_only_what_does_not_fit_is_advised(found: list[Planned]) -> None:
    assert {(one.count, one.kind) for one in found} == set(SITES)
    for one in found:
        assert one.status in {0, 3} and (one.status == 3) == bool(one.advice)
        taken, there = one.fullest_gb
        assert (taken <= there) == (one.status == 0)
        assert one.status == 0 or one.flags == "", f"advice that was followed does not fit: {one}"


def test_one_80_gb_card_serves_two_videos_and_one_24_gb_card_one(found: list[Planned]) -> None:
    plain = {(one.count, one.kind): one for one in found if not one.flags}
    assert plain[1, "h100-80"].status == 0 and "\nmemory for videos at once: 2\n" in plain[1, "h100-80"].text
    assert plain[1, "rtx4090"].status == 3
    (advised,) = [one for one in found if one.flags and one.kind == "rtx4090" and one.count == 1]
    assert "\nmemory for videos at once: 1\n" in advised.text


def test_estimates_say_so(found: list[Planned]) -> None:
    for one in found:
        assert "nothing was measured" in one.text and "(an estimate;" in one.text


def test_a_plan_needs_seconds_and_no_torch(model: Path) -> None:
    program = (
        "import sys; from server.main import main\n"
        f"try: main(['--model', {str(model)!r}, '--devices', 'cuda:0', '--plan', '--assume', 'h200'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    began_s = time.monotonic()
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (answer.returncode, answer.stderr) == (0, ""), answer
    assert "it fits" in answer.stdout and time.monotonic() - began_s < SECONDS


def test_devices_that_are_cpus_are_taken_to_be_as_many_gpus(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for devices in ("cpu,cpu", "cuda:0,cuda:1"):
        with pytest.raises(SystemExit):
            main(["--model", str(model), "--devices", devices, "--plan", "--assume", "h100-80"])
    told = capsys.readouterr().out
    half = len(told) // 2
    assert told[:half] == told[half:] and "cuda:1" in told


def test_settings_change_the_plan(model: Path) -> None:
    text = run(model, 1, "h100-80", "--text-device cpu --sizes 480x480 --kv-dtype fp8 --max-videos 3").text
    assert "(on the host)" in text and "sizes 480x480" in text and "3 videos at once" in text


def test_without_gpus_and_assumption_this_host_is_planned_for(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "free_host_bytes", lambda: 16 * 10**9)
    monkeypatch.setattr(forecast, "usable_cores", lambda: 2)
    with pytest.raises(SystemExit) as end:
        main(["--model", str(model), "--plan"])
    told = capsys.readouterr().out
    assert end.value.code == 3 and "it does not fit: the host has 16.0 GB of memory free" in told
    assert "minutes on 2 cores" in told and told.endswith(" --dtype bfloat16\n")
    with pytest.raises(SystemExit) as end:
        main(["--plan"])
    assert end.value.code == 0 and "it fits" in capsys.readouterr().out


def test_gpus_that_are_not_there_cannot_be_planned_for_without_an_assumption(model: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--model", str(model), "--devices", "cuda:0", "--plan"])
    assert "--assume" in str(end.value.code)
