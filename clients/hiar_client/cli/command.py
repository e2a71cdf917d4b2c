"""The ``hiar`` command: knows its subcommands and how it ends. Media goes to a file or stdout, words to stderr."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from hiar_client.cli import bench, completion, server_info, videos, watching
from hiar_client.cli.exits import DONE, FAILED, USAGE, Interrupted, UsageError, one_line, stop_on_signals
from hiar_client.cli.options import default_url, server_flags
from hiar_client.cli.receive import forget_stdout
from hiar_client.client import Client
from hiar_client.errors import HiarError
from hiar_client.exchange import Retries

_EXAMPLES = """\
examples:
  hiar generate "a large red circle drifts to the right over a night sky" --seconds 10
  hiar generate "a blue square bounces around on sand" -o - | ffplay -  # endless; close the window to stop
  hiar videos
  hiar status

'hiar COMMAND --help' has more. The server is --url, else HIAR_URL, else http://127.0.0.1:8000; HIAR_KEY is the key, if
it asks for one.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits the process."""
    stop_on_signals()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(words: Sequence[str]) -> int:
    """Run one command. Returns the exit status; raises ``SystemExit`` for help and what argparse refuses."""
    try:
        status = _run(words)
        sys.stdout.flush()
    except UsageError as error:
        return _told(str(error), USAGE)
    except HiarError as error:
        return _told(one_line(error), FAILED)
    except Interrupted as signal:
        return signal.status
    except BrokenPipeError:
        forget_stdout()
        return DONE
    except OSError as error:
        return _told(f"{error.filename or 'output'}: {error.strerror}", FAILED)
    return status


def _told(text: str, status: int) -> int:
    print(f"hiar: {text}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="hiar",
        description="Generate video with a HiAR server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"hiar {_version()}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    server = server_flags()
    for module in (watching, videos, server_info, bench):
        module.add(commands, server)
    completion.add(commands, whole)
    return whole


def _run(words: Sequence[str]) -> int:
    whole = parser()
    _refuse_unknown(words, whole)
    options, rest = whole.parse_known_args(words)
    if rest:
        _refuse_rest(rest, options, whole)
    if "run_alone" in options:
        return int(options.run_alone(options))
    url, key = getattr(options, "url", default_url()), os.environ.get("HIAR_KEY")
    with Client(url, key, retries=Retries(attempts=1)) as client:
        return int(options.run(client, options))


def _refuse_unknown(words: Sequence[str], whole: argparse.ArgumentParser) -> None:
    known = next(list(action.choices) for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    if not words or words[0].startswith("-") or words[0] in known:
        return
    near = difflib.get_close_matches(words[0], known, n=1, cutoff=0.7)
    if near:
        raise UsageError(f"there is no command {words[0]!r}; did you mean '{near[0]}'?")
    raise UsageError(f'there is no command {words[0]!r}; to make a video: hiar generate "{" ".join(words)}"')


def _refuse_rest(rest: list[str], options: argparse.Namespace, whole: argparse.ArgumentParser) -> None:
    if isinstance(getattr(options, "prompt", None), list) and not any(word.startswith("-") for word in rest):
        raise UsageError(f'put the prompt in quotes: "{" ".join([*options.prompt, *rest])}"')
    whole.error(f"unrecognized arguments: {' '.join(rest)}")


def _version() -> str:
    try:
        return version("hiar-client")
    except PackageNotFoundError:
        return "not installed"
