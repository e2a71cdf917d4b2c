"""`docs/metrics.md` tells every family as it is."""

from tests.server.metrics_table import DOCUMENT, with_tables


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert text == with_tables(text), "run: python -m tests.server.metrics_table"
