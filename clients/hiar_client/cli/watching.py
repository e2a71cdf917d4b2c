"""``hiar generate`` and ``hiar watch``: video into a file or a pipe while it is made."""

import argparse
from typing import Any

from hiar_client.cli.exits import Interrupted
from hiar_client.cli.options import Commands, add_command, add_reading, add_request, prompt_of, schedule_of
from hiar_client.cli.output import FileOutput, name_of, output_of
from hiar_client.cli.receive import receive
from hiar_client.cli.waiting import Waiting, telling
from hiar_client.client import Client
from hiar_client.progress import Progress
from hiar_client.video import Video

_GENERATE = """\
  hiar generate "a large red circle drifts to the right over a night sky" --seconds 10
  hiar generate "a blue square bounces around on sand" -o - | ffplay -  # endless; close the window to stop
  hiar generate "a red star at night" --at 2 "a blue square on sand" --seconds 4 -o change.mp4
  echo "a white star spins in place at night" | hiar generate - --seconds 2 --seed 7 --quiet -o star.mp4

The server is --url, else HIAR_URL, else http://127.0.0.1:8000; HIAR_KEY is the key, if it asks for one.
Ctrl-C stops; what has been written can be played. Exit status: 0 done, 1 refused or failed, 2 usage,
3 the server cut the video short, 130 Ctrl-C, 143 SIGTERM.
"""
_WATCH = """\
  ID=$(hiar videos create "a red star spins in place at night" --seconds 2)
  hiar watch $ID -o star.mp4                   # from its first block to its end
  hiar watch $ID --from 1 -o - | ffplay -      # from a block on; --from live joins at the newest
"""


def add(commands: Commands, server: argparse.ArgumentParser) -> None:
    """Add both commands."""
    generate = add_command(commands, "generate", "generate a video from a prompt", _GENERATE, server)
    add_request(generate, "until Ctrl-C")
    generate.add_argument("--linger", type=float, metavar="N", help="seconds that it lives on if nobody reads it (0)")
    generate.add_argument("-o", "--output", metavar="FILE", help="MP4 to write, - is stdout (named by the prompt)")
    generate.add_argument("-y", "--force", action="store_true", help="replace a file that the prompt names")
    add_reading(generate)
    generate.set_defaults(run=_generate)
    watch = add_command(commands, "watch", "watch a video that is made or kept", _WATCH, server)
    watch.add_argument("id", metavar="ID", help="of the video, as 'hiar videos' lists it")
    watch.add_argument("-o", "--output", metavar="FILE", help="MP4 to write, - is stdout (named by the prompt)")
    watch.add_argument("-y", "--force", action="store_true", help="replace a file that the prompt names")
    watch.add_argument("--from", dest="first", default=0, type=_block, metavar="N|live", help="first block (0)")
    add_reading(watch)
    watch.set_defaults(run=_watch)


def _generate(client: Client, options: argparse.Namespace) -> int:
    prompt = prompt_of(options.prompt)
    asked = request_of(prompt, options)
    output = output_of(options.output, name_of(prompt), options.seconds, may_replace=options.force)
    if options.pace is None and options.seconds is not None and isinstance(output, FileOutput):
        asked["pace"] = "fast"  # nobody watches a file

    waiting = Waiting(client, prompt, options.seed or 0)

    def ask(progress: Progress) -> Video:
        with telling(waiting.place, progress):
            try:
                return client.generate(**asked, linger_seconds=options.linger)
            except Interrupted:
                waiting.leave()
                raise

    return receive(ask, output, options, options.seconds)


def _watch(client: Client, options: argparse.Namespace) -> int:
    info = client.videos.get(options.id)
    seconds = float(info.seconds) if info.seconds is not None and options.first == 0 else None
    output = output_of(options.output, name_of(info.prompt), seconds, may_replace=options.force)

    def ask(progress: Progress) -> Video:
        with telling(lambda: client.videos.get(options.id).queue_position, progress):
            return client.watch(options.id, options.first)

    return receive(ask, output, options, seconds)


def request_of(prompt: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the client is to be called with. Raises ``UsageError``."""
    names = ("seconds", "seed", "size", "fps", "pace", "quality", "priority", "model", "image", "video")
    return {"prompt": schedule_of(prompt, options.at), **{name: getattr(options, name) for name in names}}


def _block(text: str) -> int | str:
    if text == "live":
        return text
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a block's number nor 'live'")
    return int(text)
