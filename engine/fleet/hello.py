"""How a node introduces itself, and what a front objects to. Values in, values out; knows no socket.

Nodes that differ in model or source would make pictures that do not fit together, or fail late and oddly. They are
told so when they join.
"""

import dataclasses
import hashlib
import hmac
import json
import os
from pathlib import Path

from engine.config import Manifest
from engine.engine_config import EngineConfig
from engine.fleet.wire import Hello, source_version

TOKEN_VARIABLE = "HIAR_GROUP_TOKEN"
"""A word all nodes of a group share; optional. With it on any node, a node with another or none is refused."""


def hello_of(config: EngineConfig) -> Hello:
    """What this node says of itself. The engine must have nodes."""
    assert config.nodes is not None
    number, version_digest = source_version()
    token = os.environ.get(TOKEN_VARIABLE, "")
    return Hello(
        node_rank=config.nodes.rank,
        num_nodes=config.nodes.num_nodes,
        devices=config.devices,
        model=config.manifest.name,
        model_digest=manifest_digest(config.manifest),
        version=number,
        version_digest=version_digest,
        token_digest=hashlib.sha256(token.encode()).hexdigest() if token else "",
    )


def manifest_digest(manifest: Manifest) -> str:
    """Hash of all that a manifest says but where its files are; LoRA files count by their names."""
    named = dataclasses.replace(
        manifest, loras=tuple(dataclasses.replace(lora, file=Path(lora.file.name)) for lora in manifest.loras)
    )
    values = {
        name: value
        for name, value in dataclasses.asdict(named).items()
        if not isinstance(value, Path) and not name.endswith("_file")
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def objection(ours: Hello, theirs: Hello) -> str | None:
    """Why node ``theirs`` cannot join the front ``ours``, as a sentence for its operator; None if it can."""
    who = f"node {theirs.node_rank}"
    same_token = hmac.compare_digest(ours.token_digest.encode(), theirs.token_digest.encode())
    one_kind = len({device == "cpu" for device in (*ours.devices, *theirs.devices)}) == 1
    # The token first: a stranger learns nothing of what is served here.
    demands = (
        (same_token, f"{who} and node 0 do not have the same {TOKEN_VARIABLE}"),
        (
            theirs.num_nodes == ours.num_nodes,
            f"{who} was told of {theirs.num_nodes} nodes and node 0 of {ours.num_nodes}",
        ),
        (0 < theirs.node_rank < ours.num_nodes, f"{who} is none of the other nodes 1..{ours.num_nodes - 1}"),
        (
            theirs.version_digest == ours.version_digest,
            f"{who} runs another source (version {theirs.version!r}) than node 0 (version {ours.version!r})",
        ),
        (theirs.model == ours.model, f"{who} has model {theirs.model!r} and node 0 has model {ours.model!r}"),
        (
            theirs.model_digest == ours.model_digest,
            f"{who} and node 0 have different manifests of model {ours.model!r}",
        ),
        (one_kind, f"{who} lends {','.join(theirs.devices)!r} and node 0 has {','.join(ours.devices)!r}; use one kind"),
    )
    return next((sentence for met, sentence in demands if not met), None)
