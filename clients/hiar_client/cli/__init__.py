"""The ``hiar`` command, a module for each group of subcommands. Asks the server by the client only."""

from hiar_client.cli.command import main

__all__ = ["main"]
