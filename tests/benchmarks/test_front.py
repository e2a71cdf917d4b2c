"""The benchmark of the front runs, and its table has a row for each number of videos."""

import re
from pathlib import Path

import pytest

from benchmarks.front import main

ROW = re.compile(r"^\| (\d+) \| (\d+) \| (\d+) µs \| \d+ µs \| [\d.]+ ms \| [\d.]+ ms \| (\d+) \|$", re.MULTILINE)


@pytest.mark.slow
def test_it_measures_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--videos", "1,7", "--events", "300", "--beside", "2", "--out", str(tmp_path)])
    report = (tmp_path / "front.md").read_text()
    assert capsys.readouterr().out.strip() == report.strip()
    rows = [tuple(map(int, row)) for row in ROW.findall(report)]
    assert [row[0] for row in rows] == [1, 7]
    assert all(events >= 300 and blocks > 0 for _, events, _, blocks in rows)
    waits = re.search(r"median: (\d+) ms alone, (\d+) ms beside 2 videos", report)
    assert waits is not None and all(int(wait) >= 40 for wait in waits.groups()), "four passes take that long"
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
