"""The settings that say where durable videos are kept, and for how long."""

import re

from server.option import Option, not_negative, whole, word

_ADDRESS = re.compile(r"https?://[^/?#\s]+")


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text.rstrip("/")):
        raise ValueError(text)
    return text.rstrip("/")


STORE_OPTIONS = (
    Option(
        name="data",
        read=word,
        expected="a folder, or memory",
        help="folder of what outlives the process: accepted jobs, their videos, receipts; memory keeps nothing",
        default="default: $XDG_STATE_HOME/hiar, or ~/.local/state/hiar",
    ),
    Option(
        name="database",
        read=word,
        expected="a URL like postgresql+psycopg://USER:PASSWORD@NODE/NAME",
        help="database of durable videos, where several servers share one",
        default="default: SQLite in --data",
    ),
    Option(
        name="store",
        read=word,
        expected="a folder, or a URL like s3://BUCKET/FOLDER",
        help="where the files of durable videos lie",
        default="default: videos in --data",
    ),
    Option(
        name="advertise",
        read=_address,
        expected="an address like http://10.0.0.7:8000",
        help="with --database: where readers reach this server, for others that send them here",
        default="default: where it listens",
    ),
    Option(
        name="keep_hours",
        read=not_negative,
        expected="a number of hours, 0 or more",
        help="how long an ended durable video is kept",
    ),
    Option(
        name="keep_bytes",
        read=whole(0, 2**60),
        expected="0..2^60 bytes",
        help="how much ended durable videos may take together; the oldest go first",
    ),
)
