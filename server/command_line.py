"""The command line of ``hiar-server``: a flag for each option, and what ``--help`` says.

Reads no value: the settings do.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from server.options import OPTIONS

_EXAMPLES = """\
examples:
  hiar-server                                      # the small model on the CPU, at http://127.0.0.1:8000
  hiar-server --devices cpu,cpu,cpu,cpu            # the same as a pipeline of four processes
  hiar-server --port 9000 --max-videos 1           # one video at a time
  hiar-server --new-key alice --keys keys.txt      # make a key and print it once
  hiar-server --model models/hiar --devices cuda:0,cuda:1 --host 0.0.0.0 --keys keys.txt --allowed-hosts gpu-box
  hiar-server --model models/hiar --plan --assume rtx4090   # what fits on such a GPU, without one
  hiar-server --preset longlive --plan --assume rtx4090     # the same before the model is downloaded

two hosts, the first at 10.9.0.1; requests go to the first:
  hiar-server --nnodes 2 --node-rank 0 --master-addr 10.9.0.1 --devices cuda:0,cuda:1 --host 0.0.0.0 --keys keys.txt
  hiar-server --nnodes 2 --node-rank 1 --master-addr 10.9.0.1 --devices cuda:0,cuda:1

Each flag can be given as an environment variable too: HIAR_PORT=9000 means --port 9000; a flag wins.
torchrun --nproc-per-node 1 and LeaderWorkerSet set number, rank and master of the nodes by their own variables.
Between hosts, messages are not encrypted: use a network you trust. HIAR_GROUP_TOKEN, the same word on all of them,
keeps the hosts of two groups apart.
SIGTERM or Ctrl-C ends running videos at the end of their block; a second one ends at once.
"""


def parser_of(defaults: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The command line. All values stay text, or lists of texts where a flag repeats, None where not given.

    ``defaults``: by name, of the options that say none themselves; help shows them.
    """
    parser = argparse.ArgumentParser(
        prog="hiar-server",
        description="Generate endless video from prompts and stream it over HTTP while it is being made.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what each worker would hold in memory and the expected speed, and serve nothing; exit status 0 if "
        "it fits, 3 if not, with the flags that make it fit in the last line",
    )
    parser.add_argument("--list-presets", action="store_true", help="print the known checkpoints and serve nothing")
    for option in OPTIONS:
        help_text = f"{option.help} ({option.default or _shown(defaults[option.name])})"
        shown = help_text.replace("%", "%%")
        if option.is_switch:
            parser.add_argument(option.flag, dest=option.name, action="store_const", const="true", help=shown)
            continue
        action = "append" if option.repeats else "store"
        parser.add_argument(option.flag, dest=option.name, metavar=option.metavar, action=action, help=shown)
    return parser


def _shown(default: Any) -> str:
    if default is None:
        return "default: no limit"
    if default == "auto":
        return "default: auto"
    if isinstance(default, tuple):
        return f"default: {','.join(default)}"
    return f"default: {default:g}" if isinstance(default, float) else f"default: {default}"
