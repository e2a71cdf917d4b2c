"""``hiar status`` and ``hiar models``: what a server is and offers."""

import argparse

from hiar_client.cli.exits import DONE, FAILED
from hiar_client.cli.options import Commands, add_command, add_json
from hiar_client.cli.table import print_json
from hiar_client.client import Client
from hiar_client.objects import Facts

_STATUS = """\
  hiar status                        # exit status 0 if a new video would be taken
  hiar status --json | head -n 3
"""
_MODELS = """\
  hiar models
  hiar models --json | head -n 3
"""


def add(commands: Commands, server: argparse.ArgumentParser) -> None:
    """Add both commands."""
    status = add_command(commands, "status", "tell how the server is; exit status 0 if ready", _STATUS, server)
    add_json(status)
    status.set_defaults(run=_status)
    models = add_command(commands, "models", "list what can be asked for", _MODELS, server)
    add_json(models)
    models.set_defaults(run=_models)


def _status(client: Client, options: argparse.Namespace) -> int:
    told = client.capabilities()
    if options.json:
        print_json(told)
    else:
        print(f"{client.url}: {told.state}, model {told.model}")
        print(f"videos: {told.load.running} running of {told.load.slots}, {told.load.waiting} waiting")
        if told.facts is not None:
            _print_facts(told.facts)
    return DONE if told.state == "ready" else FAILED


def _print_facts(facts: Facts) -> None:
    for worker in facts.workers:
        print(f"worker {worker.rank} on {worker.device}: {' '.join(worker.stages)}")
    rate = facts.frames_per_second
    print(f"predicted {rate:g} frames/s; attention {facts.attention}, encoder {facts.encoder}")
    dtypes = facts.dtypes
    types = {"activations": dtypes.activations, "pages": dtypes.pages, "linears": dtypes.linears}
    print("types: " + ", ".join(f"{part} {name}" for part, name in {**types, "attention": dtypes.attention}.items()))


def _models(client: Client, options: argparse.Namespace) -> int:
    models = client.models.list()
    if options.json:
        print_json(models)
        return DONE
    for model in models:
        print(f"{model.id}: {', '.join(model.sizes)} at {model.fps} frames/s (at most {model.max_fps})")
        if model.description:
            print(f"  {model.description}")
    return DONE
