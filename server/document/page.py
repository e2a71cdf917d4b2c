"""The document of the API as one page of HTML."""

from server.document.operation import Json

POLICY = "default-src 'none'"


def page(document: Json) -> str:
    """The whole page."""
    return str(document["info"]["title"])
