"""``hiar videos`` and ``hiar prompt``: videos as things that are made, told of, steered, kept and forgotten."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from hiar_client.cli.exits import DONE, FAILED, UsageError
from hiar_client.cli.options import Commands, add_command, add_json, add_request, prompt_of
from hiar_client.cli.output import name_of
from hiar_client.cli.table import print_json, print_table
from hiar_client.cli.watching import request_of
from hiar_client.client import Client
from hiar_client.objects import VideoInfo
from hiar_client.progress import bytes_words

_SUFFIXES = {"video": ".mp4", "thumbnail": ".webp", "spritesheet": ".jpg"}

_MAKE = '  ID=$(hiar videos create "a red star spins in place at night" --seconds 2)\n'
_LIVE = '  ID=$(hiar videos create "a red star spins in place at night" --seconds 60 --pace realtime)\n'
_VIDEOS = f"""\
{_MAKE}  hiar videos                                  # the newest 20
  hiar videos wait $ID
  hiar videos download $ID -o star.mp4
  hiar videos --json | head -n 3
"""
_CREATE = """\
  hiar videos create "a red star spins in place at night" --seconds 2   # prints its id; made without a reader
  hiar videos create "a red star" --at 1 "a blue square" --seconds 2 --seed 7
"""
_PROMPT = f"""\
{_LIVE}  hiar prompt $ID "a blue square bounces around on sand"
  hiar videos cancel $ID
"""
_DOWNLOAD = f"""\
{_MAKE}  hiar videos wait $ID
  hiar videos download $ID                     # a-red-star-spins-in-place-at-night.mp4
  hiar videos download $ID --variant thumbnail -o star.webp
"""
_HOLD = f"""\
{_LIVE}  hiar videos pause $ID                        # no more blocks of it are begun
  hiar videos resume $ID
  hiar videos delete $ID
"""


def add(commands: Commands, server: argparse.ArgumentParser) -> None:
    """Add both commands."""
    videos = add_command(commands, "videos", "list videos, or do something with one", _VIDEOS, server)
    _add_list(videos)
    things = videos.add_subparsers(metavar="WHAT")
    _add_list(add_command(things, "list", "list the newest videos", _VIDEOS, server))
    _add_making(things, server)
    _add_one(things, server, "get", "tell all of a video as JSON", f"{_MAKE}  hiar videos get $ID\n", _get)
    wait = _add_one(things, server, "wait", "wait for the end of a video", f"{_MAKE}  hiar videos wait $ID\n", _wait)
    add_json(wait)
    cancel = f"{_LIVE}  hiar videos cancel $ID\n"
    _add_one(things, server, "cancel", "end a video at its next block and keep what was made", cancel, _cancel)
    _add_one(things, server, "delete", "end a video and forget it", f"{_MAKE}  hiar videos delete $ID\n", _delete)
    _add_one(things, server, "pause", "hold a video", _HOLD, _pause)
    _add_one(things, server, "resume", "let a paused video go on", _HOLD, _resume)
    download = _add_one(things, server, "download", "fetch a video, or a picture of it", _DOWNLOAD, _download)
    download.add_argument("-o", "--output", metavar="FILE", help="file to write, - is stdout (named by the prompt)")
    download.add_argument("-y", "--force", action="store_true", help="replace a file that the prompt names")
    download.add_argument("--variant", choices=tuple(_SUFFIXES), default="video", help="what to fetch (video)")
    prompt = _add_one(commands, server, "prompt", "change what a running video shows", _PROMPT, _prompt)
    prompt.add_argument("prompt", metavar="TEXT", nargs="*", help="what to show; @FILE reads a file, - reads stdin")


def _add_making(things: Commands, server: argparse.ArgumentParser) -> None:
    create = add_command(things, "create", "have a video made that needs no reader; prints its id", _CREATE, server)
    add_request(create, "4")
    create.set_defaults(run=_create)
    remix = f'{_MAKE}  hiar videos remix $ID "a blue star spins in place at night"\n'
    again = _add_one(
        things, server, "remix", "make a video like one, with another prompt; prints its id", remix, _remix
    )
    again.add_argument("prompt", metavar="PROMPT", nargs="*", help="what to show; @FILE reads a file, - reads stdin")
    extend = f"{_MAKE}  hiar videos wait $ID\n  hiar videos extend $ID 2\n"
    longer = _add_one(things, server, "extend", "go on behind a video's end; prints the new one's id", extend, _extend)
    longer.add_argument("seconds", type=float, metavar="SECONDS", help="how much longer")
    longer.add_argument("--prompt", metavar="TEXT", help="what to show from there on (the same)")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many, 1 to 100 (20)")
    add_json(parser)
    parser.set_defaults(run=_list)


def _add_one(
    commands: Commands,
    server: argparse.ArgumentParser,
    name: str,
    text: str,
    examples: str,
    run: Callable[[Client, argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, text, examples, server)
    parser.add_argument("id", metavar="ID", help="of the video")
    parser.set_defaults(run=run)
    return parser


def _list(client: Client, options: argparse.Namespace) -> int:
    videos = client.videos.list(limit=options.limit).data
    if options.json:
        print_json(videos)
    elif videos:
        print_table(("ID", "STATUS", "SECONDS", "SIZE", "PROMPT"), [_row(video) for video in videos])
    else:
        print(f"no videos at {client.url}", file=sys.stderr)
    return DONE


def _row(video: VideoInfo) -> tuple[str, ...]:
    asked = "endless" if video.seconds is None else f"{float(video.seconds):g}"
    status = video.status if video.queue_position is None else f"place {video.queue_position}"
    return video.id, "paused" if video.paused else status, f"{video.seconds_done:.1f}/{asked}", video.size, video.prompt


def _get(client: Client, options: argparse.Namespace) -> int:
    print_json(client.videos.get(options.id))
    return DONE


def _wait(client: Client, options: argparse.Namespace) -> int:
    video = client.videos.wait(options.id)
    if options.json:
        print_json(video)
    if video.error is not None:
        print(f"hiar: {video.error.message} [{video.error.code}]", file=sys.stderr)
    return DONE if video.status == "completed" else FAILED


def _create(client: Client, options: argparse.Namespace) -> int:
    print(client.videos.create(**request_of(prompt_of(options.prompt), options)).id)
    return DONE


def _remix(client: Client, options: argparse.Namespace) -> int:
    print(client.videos.remix(options.id, prompt_of(options.prompt)).id)
    return DONE


def _extend(client: Client, options: argparse.Namespace) -> int:
    print(client.videos.extend(options.id, options.seconds, prompt=options.prompt).id)
    return DONE


def _cancel(client: Client, options: argparse.Namespace) -> int:
    client.videos.cancel(options.id)
    return DONE


def _delete(client: Client, options: argparse.Namespace) -> int:
    client.videos.delete(options.id)
    return DONE


def _pause(client: Client, options: argparse.Namespace) -> int:
    client.videos.pause(options.id)
    return DONE


def _resume(client: Client, options: argparse.Namespace) -> int:
    client.videos.resume(options.id)
    return DONE


def _prompt(client: Client, options: argparse.Namespace) -> int:
    change = client.videos.prompt(options.id, prompt_of(options.prompt))
    print(f"from block {change.block} on, {change.at_seconds:.2f} s into the video")
    return DONE


def _download(client: Client, options: argparse.Namespace) -> int:
    if options.output == "-":
        if sys.stdout.isatty():
            raise UsageError("the file would fill this terminal; pipe it into another program, or name a file")
        sys.stdout.buffer.write(client.videos.content(options.id, variant=options.variant))
        return DONE
    path = Path(options.output) if options.output is not None else _default(client, options)
    client.videos.download(options.id, path, variant=options.variant)
    print(f"{path}: {bytes_words(path.stat().st_size)}", file=sys.stderr)
    return DONE


def _default(client: Client, options: argparse.Namespace) -> Path:
    path = name_of(client.videos.get(options.id).prompt).with_suffix(_SUFFIXES[options.variant])
    number = 1
    free = path
    while free.exists() and not options.force:
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
