"""``docs/operations.md``: its numbers are the code's, its tests exist, and every alert has its runbook there."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from engine.config import RolloutConfig, TransformerConfig
from engine.law.window import pages_per_video
from engine.manifest import UMT5_XXL
from engine.stage.pages import page_bytes
from server import settings
from server.download import command

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
RUNBOOKS = (ROOT / "deploy" / "observability" / "runbooks.md").read_text()
ALERTS = [
    rule
    for file in sorted((ROOT / "deploy" / "helm" / "hiar-server" / "rules").glob("*.yaml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
MODEL = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, text_dim=UMT5_XXL.dim, text_len=512)
BLOCK_TOKENS = 3 * (480 // 16) * (832 // 16)


def page(dtype: torch.dtype) -> int:
    return page_bytes(MODEL.num_layers, BLOCK_TOKENS, MODEL.num_heads, MODEL.head_dim, dtype)


def help_of(capsys: pytest.CaptureFixture[str]) -> str:
    for parse in (command.main, settings.settings_from_process):
        with pytest.raises(SystemExit):
            parse(["--help"])
    return capsys.readouterr().out


def test_every_alert_links_to_its_runbook() -> None:
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)}
    assert ALERTS
    for alert in ALERTS:
        file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (ROOT / file).samefile(ROOT / "docs" / "operations.md")
        assert anchor == alert["alert"].lower() and anchor in headings


def test_runbooks_are_those_of_the_rules() -> None:
    runbooks = RUNBOOKS.partition("\n\n")[2]
    assert TEXT.endswith(f"\n\n{runbooks}"), "end docs/operations.md with what deploy/observability/runbooks.md holds"


def test_what_is_said_to_be_proven_is_tested() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)` \|$", TEXT, re.MULTILINE)
    table = TEXT.partition("## What happens if X dies")[2].partition("\n## ")[0]
    assert len(named) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2 > 0
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {test}"


@pytest.mark.parametrize(
    ("dtype", "row"),
    [(torch.bfloat16, "pages as they are"), (torch.float8_e4m3fn, "`--kv-dtype fp8` (changes the pictures)")],
)
def test_memory_of_pages(dtype: torch.dtype, row: str) -> None:
    rollout = RolloutConfig()
    sizes = [page(dtype), page(dtype) * rollout.window_blocks, page(dtype) * pages_per_video(rollout)]
    assert f"| {row} | " + " | ".join(f"{size / 1e9:.3g} GB" for size in sizes) + " |" in TEXT


def test_the_formula_of_a_page() -> None:
    assert f"2 x 30 x {BLOCK_TOKENS} x {MODEL.dim} x 2 = {page(torch.bfloat16):,} bytes" in " ".join(TEXT.split())


def test_flags_settings_and_files_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known = help_of(capsys)
    chapters = TEXT.partition("## Size a machine")[2].partition("## Alerts")[0]
    flags = re.findall(r"`(--[a-z-]+)", chapters)
    assert flags and all(re.search(rf"{flag}\b", known) for flag in flags)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and all((ROOT / "docs" / link).exists() for link in links)
