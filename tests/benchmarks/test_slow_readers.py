"""The benchmark of slow readers runs on a real server: newcomers are served beside a small crowd."""

import re
from pathlib import Path

import pytest

from benchmarks import slow_readers


@pytest.mark.slow
@pytest.mark.in_time
def test_newcomers_are_served_beside_a_crowd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_readers, "SETTLED_S", 0.5)
    slow_readers.main(
        ["--readers", "20", "--half-open", "20", "--rounds", "1", "--holders", "0", "--out", str(tmp_path)]
    )
    report = (tmp_path / "slow_readers.md").read_text()
    assert capsys.readouterr().out.strip() == report.strip()
    first = re.search(r"first fragment, median \| (\d+) ms \| (\d+) ms", report)
    assert first is not None and all(int(took) > 0 for took in first.groups())
    assert "(2 newcomers each)" in report
