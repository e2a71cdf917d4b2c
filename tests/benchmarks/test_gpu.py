"""The measurement on a GPU, as far as a machine without one can tell: every path at tiny sizes, and the arithmetic."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from benchmarks.gpu.__main__ import PARTS, main
from benchmarks.gpu.attention import BACKENDS, FLEX, NARROW, OURS
from benchmarks.gpu.chart import bar_chart
from benchmarks.gpu.passes import flow_difference, forward_flop, random_model, replayed
from benchmarks.gpu.rates import block_seconds, placed, whole_video
from benchmarks.gpu.record import Bar, Panel, Section, Table
from benchmarks.gpu.report import DRY_RUN, Report
from benchmarks.gpu.sizes import DRY, REAL
from benchmarks.gpu.timing import Bench, PassTimes

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
EQUAL_PASSES = PassTimes(
    denoise_s=1.0, cache_s=1.0, stages_s=(2.0, 4.0, 6.0, 8.0), baseline_denoise_s=2.0, baseline_cache_s=2.0
)


def dry_bench() -> Bench:
    return Bench(device=CPU, dtype=torch.float32, sizes=DRY)


def run_gpu(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments])
    main()


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.mark.slow
def test_a_dry_run_takes_every_path(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--out", str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    report = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert report["dry_run"] is True
    assert set(report["sections"]) == set(PARTS)
    for name, section in report["sections"].items():
        assert section["tables"] and all(table["rows"] for table in section["tables"]), name
        assert list(numbers(section)) and all(map(math.isfinite, numbers(section))), name
        assert all("SDPA" in line for line in section["not_run"]), section["not_run"]
    found = {row["what"] for row in report["sections"]["attention"]["tables"][0]["rows"]}
    assert {OURS, FLEX, *NARROW} < found <= {OURS, FLEX, *NARROW, *BACKENDS}
    for row in report["sections"]["attention"]["tables"][0]["rows"]:
        assert row["error against float32"] < (0.05 if row["what"] in NARROW else 1e-5), row
    assert DRY_RUN in (tmp_path / "gpu-cpu.md").read_text()
    assert ElementTree.parse(tmp_path / "gpu-cpu.svg").findall(".//{*}rect")


def test_what_does_not_fit_is_reported_and_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_gpu(monkeypatch, "--dry-run", "--out", str(tmp_path), "--only", "rates,attention", "--budget-s", "0")
    sections = json.loads((tmp_path / "gpu-cpu.json").read_text())["sections"]
    assert list(sections) == ["attention", "rates"]
    assert all(section["not_run"] and not section["tables"] for section in sections.values())


@pytest.mark.slow
def test_it_needs_torch_and_nothing_else() -> None:
    names = ("fastapi", "uvicorn", "pydantic", "av", "safetensors", "transformers", "tokenizers", "matplotlib")
    program = f"import sys; sys.modules.update(dict.fromkeys({names!r})); import benchmarks.gpu.__main__"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no CUDA device"):
        run_gpu(monkeypatch)


def test_an_unknown_section_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_gpu(monkeypatch, "--only", "passes,speed")
    assert caught.value.code == 2 and "no section speed" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["eager", "replayed"])
def test_the_baseline_gives_our_flow_while_its_window_moves(way: str) -> None:
    bench = dry_bench()
    with torch.inference_mode():
        model = random_model(DRY.transformer, CPU, torch.float32)
        embedding_TX = torch.randn(DRY.prompt_tokens, DRY.transformer.text_dim)
        network = replayed(bench, model, window_blocks=3) if way == "replayed" else model
        worst, scale = flow_difference(bench, model, network, embedding_TX, num_blocks=6, window_blocks=3)
    assert scale > 0.5
    assert worst <= 1e-4


def test_the_real_sizes_are_those_of_the_model() -> None:
    assert REAL.block_tokens == 4680
    bench = replace(dry_bench(), sizes=REAL)
    # Spec section 1.5: 40.4 TFLOP a pass; a cache pass stops in its last layer.
    assert forward_flop(bench, 0, 1, "D") / 1e12 == pytest.approx(40.4, abs=0.05)
    assert forward_flop(bench, 1, 0, "baseline C") == forward_flop(bench, 0, 1, "D")
    assert forward_flop(bench, 1, 0, "C") / 1e12 == pytest.approx(40.4 - 1.3, abs=0.1)


def test_equal_passes_give_the_spec_s_counts() -> None:
    seconds = {way: taken for way, (_, taken) in block_seconds(4, EQUAL_PASSES).items()}
    assert seconds["ours, block-first"] == 5
    assert seconds["ours, step-first, one pass a forward"] == seconds["ours, step-first, all stages at once"] == 8
    assert seconds["plain PyTorch, block-first"] == 10 and seconds["plain PyTorch, step-first"] == 16
    rows = {row[0]: row for row in whole_video(DRY.rollout, EQUAL_PASSES).rows}
    assert rows["block-first, 1 GPU"][2] == 5 * 27 - 1
    assert rows["step-first, 4 GPUs"][2] == 2 * 27 + 4 - 2
    assert rows["step-first, 4 GPUs"][3] == pytest.approx(321 / 56)


def test_the_planner_is_asked_for_several_devices() -> None:
    rows = {(row[0], row[1]): row for row in placed(DRY.rollout, EQUAL_PASSES, {"none": 0.0, "slow": 3.0}).rows}
    assert rows[1, "none"][-1] == 12 / 8
    assert rows[4, "none"][-1] == 12 / 2
    assert rows[5, "slow"][-1] == 12 / 3
    assert rows[2, "slow"][3] == "3 + 1 and decode"


def test_a_failing_case_is_written_down() -> None:
    section = Section("attention", "Attention")
    assert section.attempt("half", lambda: 1 // 2) == 0
    assert section.attempt("none", lambda: 1 // 0) is None
    assert section.not_run == ["none: ZeroDivisionError: integer division or modulo by zero"]


def test_little_time_makes_fewer_runs() -> None:
    bench = replace(dry_bench(), sizes=replace(DRY, runs=9))
    assert len(bench.interleaved({"nothing": lambda: None})["nothing"].runs_s) == 9
    bench.deadline_s = time.monotonic() - 1
    assert len(bench.interleaved({"nothing": lambda: None})["nothing"].runs_s) == 5


def test_the_report_shows_tables_and_bars() -> None:
    section = Section(
        "ceilings", "Ceilings", tables=[Table("Copy", ("what", "GB/s"), (("a|b", 2871.4), ("c", 0.00123456)))]
    )
    report = Report("command", {"device": "X"}, {}, dry_run=False, took_s=1.0, sections=[section])
    text = report.as_markdown("x.svg")
    assert "| a\\|b | 2871 |" in text and "| c | 0.001235 |" in text
    assert DRY_RUN not in text and "Everything asked for was run." in text
    panel = Panel("Rates", "GB/s", (Bar("one", 2.0, ours=True), Bar("two", 1.0)))
    bars = ElementTree.fromstring(bar_chart("Title", [panel, Panel("Empty", "s", ())])).findall(".//{*}rect")
    assert [float(bar.get("width", "")) for bar in bars[1:]] == [550.0, 275.0]
