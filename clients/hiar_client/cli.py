"""The ``hiar`` command: generate a video into a file or a pipe, and ask a server how it is.

Knows no HTTP; see ``client``. Media goes to the file or stdout, everything for people to stderr.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from hiar_client.client import DEFAULT_URL, HiarClient, HiarError, Video
from hiar_client.progress import Progress, progress_on

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""

_EXAMPLES = """\
examples:
  hiar generate "a large red circle drifts to the right over a night sky" --seconds 10 -o circle.mp4
  hiar generate "a blue square bounces around on sand" -o - | ffplay -  # endless; close the window to stop
  hiar generate "a white star spins clockwise in place at night" --seconds 5 --seed 7 --pace fast -o star.mp4
  hiar status
  hiar models --url http://gpu-box:8000

The server is --url, else HIAR_URL, else http://127.0.0.1:8000; HIAR_KEY is the key, if it asks for one.
Ctrl-C stops; what has been written stays playable.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits the process."""
    options = _parser().parse_args(arguments)
    try:
        with HiarClient(options.url, os.environ.get("HIAR_KEY")) as client:
            sys.exit(options.run(client, options))
    except HiarError as error:
        sys.exit(f"hiar: {_one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _generate(client: HiarClient, options: argparse.Namespace) -> int:
    if options.output != "-" and not Path(options.output).resolve().parent.is_dir():
        raise HiarError("bad_output", f"the folder of {options.output} does not exist")
    progress = progress_on(sys.stderr, options.seconds)
    with progress:
        status = _receive(client, options, progress)
    if progress.num_blocks:
        print(progress.summary("stdout" if options.output == "-" else options.output), file=sys.stderr)
    return status


def _receive(client: HiarClient, options: argparse.Namespace, progress: Progress) -> int:
    try:
        with _ask(client, options) as video, ExitStack() as stack:
            _write(video, _open_output(options.output, stack), progress)
    except KeyboardInterrupt:
        progress.note("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # The player at the other end was closed: that is how one stops watching.
        _forget_stdout()
        progress.note("the reader closed the pipe")
    except OSError as error:
        progress.note(f"cannot write {options.output}: {error.strerror}")
        return 1
    except HiarError as error:
        progress.note(_one_line(error))
        return 1
    return 0


def _ask(client: HiarClient, options: argparse.Namespace) -> Video:
    return client.generate(
        options.prompt,
        seconds=options.seconds,
        seed=options.seed,
        size=options.size,
        fps=options.fps,
        pace=options.pace,
        quality=options.quality,
    )


def _open_output(name: str, stack: ExitStack) -> BinaryIO:
    """Open the file only now that there is video: a refused request must not empty an older one."""
    if name == "-":
        return sys.stdout.buffer
    return stack.enter_context(open(name, "wb"))


def _write(video: Video, output: BinaryIO, progress: Progress) -> None:
    output.write(video.init_segment)
    for fragment in video:
        output.write(fragment.data)
        output.flush()
        progress.advance(fragment)
    if video.end is not None and video.end.reason != "completed":
        progress.note(f"the server ended the video: {video.end.reason}")


def _forget_stdout() -> None:
    """Keep Python from writing what is left to the closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(client: HiarClient, _options: argparse.Namespace) -> int:
    answer = client.capabilities()
    load, facts = answer["load"], answer["facts"]
    print(f"{client.base_url}: {answer['state']}, model {answer['model']}")
    print(f"videos: {load['running']} running of {load['slots']}, {load['waiting']} waiting")
    if facts:
        for worker in facts["workers"]:
            print(f"worker {worker['rank']} on {worker['device']}: {' '.join(worker['stages'])}")
        rate = facts["frames_per_second"]
        print(f"predicted {rate:g} frames/s; attention {facts['attention']}, encoder {facts['encoder']}")
        print("types: " + ", ".join(f"{part} {dtype}" for part, dtype in facts["dtypes"].items()))
    return 0 if answer["state"] == "ready" else 1


def _models(client: HiarClient, _options: argparse.Namespace) -> int:
    for model in client.models():
        print(f"{model['id']}: {', '.join(model['sizes'])} at {model['fps']} frames/s (at most {model['max_fps']})")
        if model["description"]:
            print(f"  {model['description']}")
    return 0


def _one_line(error: HiarError) -> str:
    text = " ".join(error.message.split())
    if error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:g} s)"
    return f"{text} [{error.code}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hiar",
        description="Generate video with a HiAR server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    server = argparse.ArgumentParser(add_help=False)
    url = os.environ.get("HIAR_URL", DEFAULT_URL)
    server.add_argument("--url", default=url, help=f"address of the server ({url})")
    generate = commands.add_parser(
        "generate",
        parents=[server],
        help="generate a video from a prompt",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_generate(generate)
    status = commands.add_parser("status", parents=[server], help="tell how the server is; exit status 0 if ready")
    status.set_defaults(run=_status)
    models = commands.add_parser("models", parents=[server], help="list what can be asked for")
    models.set_defaults(run=_models)
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to show")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="MP4 to write; - is stdout")
    parser.add_argument("--seconds", type=float, metavar="N", help="length of the video (until Ctrl-C)")
    parser.add_argument("--seed", type=int, metavar="S", help="same request, same seed: same video (0)")
    parser.add_argument("--size", metavar="WxH", help="in pixels, one that 'hiar models' lists (the model's first)")
    parser.add_argument("--fps", type=int, metavar="N", help="frames a second at playback (the model's own)")
    parser.add_argument("--pace", choices=("realtime", "fast"), help="stay just ahead of playback, or do not wait")
    parser.add_argument("--quality", choices=("draft", "standard", "high"), help="bits to spend (standard)")
    parser.set_defaults(run=_generate)
