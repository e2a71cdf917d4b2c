"""Flags that several commands share, and how their values are read."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from hiar_client.cli.exits import UsageError
from hiar_client.wire import DEFAULT_URL

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command is added."""


def server_flags() -> argparse.ArgumentParser:
    """What every command takes that asks a server."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--url", default=argparse.SUPPRESS, help=f"address of the server ({default_url()})")
    return parser


def default_url() -> str:
    """Where a server is asked that the command line does not name."""
    return os.environ.get("HIAR_URL") or DEFAULT_URL


def add_command(
    commands: Commands,
    name: str,
    text: str,
    examples: str,
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command with its help."""
    return commands.add_parser(
        name,
        parents=parents,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let it answer for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What reads a video into a file takes."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print what was done as one line of JSON")


def add_request(parser: argparse.ArgumentParser, length: str) -> None:
    """What a request for a video can say. ``length``: which one it has if nothing is said."""
    parser.add_argument("prompt", metavar="PROMPT", nargs="*", help="what to show; @FILE reads a file, - reads stdin")
    parser.add_argument(
        "--at",
        action="append",
        nargs=2,
        default=[],
        metavar=("SECONDS", "PROMPT"),
        help="another prompt from then on; may be repeated",
    )
    parser.add_argument("--seconds", type=positive, metavar="N", help=f"length of the video ({length})")
    parser.add_argument("--seed", type=int, metavar="S", help="same request, same seed: same video (0)")
    parser.add_argument("--size", metavar="WxH", help="in pixels, one that 'hiar models' lists (the model's first)")
    parser.add_argument("--fps", type=int, metavar="N", help="frames a second at playback (the model's own)")
    parser.add_argument("--pace", choices=("realtime", "fast"), help="stay just ahead of playback, or do not wait")
    parser.add_argument("--quality", choices=("draft", "standard", "high"), help="bits to spend (standard)")
    parser.add_argument("--priority", type=int, metavar="N", help="of fast videos the higher is made first (0)")
    parser.add_argument("--model", metavar="NAME", help="refuse to be served by another")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--image", type=_file, metavar="FILE", help="begin with this picture: JPEG, PNG or WebP")
    start.add_argument("--video", type=_file, metavar="FILE", help="go on from this clip: MP4")


def prompt_of(words: Sequence[str]) -> str:
    """The prompt that was given, wherever it stands. Raises ``UsageError``."""
    if not words:
        raise UsageError("the prompt is missing; say what the video is to show, in quotes")
    if len(words) > 1:
        raise UsageError(f'put the prompt in quotes: "{" ".join(words)}"')
    if words[0] == "-":
        return sys.stdin.read().strip()
    if not words[0].startswith("@"):
        return words[0]
    try:
        return Path(words[0][1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"cannot read {words[0][1:]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{words[0][1:]} is not text in UTF-8") from error


def schedule_of(prompt: str, changes: Sequence[Sequence[str]]) -> str | list[tuple[float, str]]:
    """The prompts in order of time. Raises ``UsageError``."""
    if not changes:
        return prompt
    later = sorted((_time(at), text) for at, text in changes)
    return [(0.0, prompt), *later]


def _time(text: str) -> float:
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--at: {error}") from error


def positive(text: str) -> float:
    """A number of seconds. Raises ``argparse.ArgumentTypeError``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path
