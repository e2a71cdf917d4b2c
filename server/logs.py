"""How the process writes its log: lines for people, or a JSON object a line. Knows no event."""

import json
import logging
import sys
from datetime import UTC, datetime

FIELDS = "hiar_fields"
"""What a record's ``extra`` holds under this name stands in the JSON in place of its message."""


class JsonLines(logging.Formatter):
    """A record as one JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, FIELDS, None)
        told |= {"message": record.getMessage()} if fields is None else fields
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def configure_logging(level: str, form: str) -> None:
    """Write all log records of ``level`` and above to stderr. ``form``: ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else lines)
    logging.basicConfig(level=level.upper(), handlers=[handler])
