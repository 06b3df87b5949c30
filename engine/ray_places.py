"""(pure) Where in a cluster workers can draw, by what Ray says of its machines."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.ray_messages import Place


def places_of(
    nodes: Iterable[Mapping[str, Any]],
    gpus_per_worker: float,
    labels: Sequence[tuple[str, str]] = (),
) -> tuple[Place, ...]:
    """Returns the places of a cluster.

    Args:
        nodes: as ``ray.nodes()`` returns them.
        gpus_per_worker: share of a GPU, or GPUs, of each worker; 0 makes one place of each machine
            that gives Ray a CPU.
        labels: those that a machine must have.
    """
    suitable = [
        node
        for node in nodes
        if node.get("Alive") and all(_label(node, name) == value for name, value in labels)
    ]
    named = Counter(_name(node) for node in suitable)
    places = []
    for node in suitable:
        name = _name(node)
        if named[name] > 1:  # several nodes on one machine, as in tests
            name = f"{name}-{node['NodeID'][:4]}"
        resources = node.get("Resources") or {}
        if gpus_per_worker <= 0:
            count, kind = int(resources.get("CPU", 0) >= 1), "cpu"
        else:
            # A hair's breadth more: three workers of a third each fit on one GPU.
            count, kind = math.floor(resources.get("GPU", 0) / gpus_per_worker + 1e-6), "cuda:0"
        for number in range(count):
            device = f"{name} {kind if kind == 'cpu' else f'gpu {number}'}"
            key = f"{node['NodeID']}:{number}"
            places.append(Place(key, node["NodeID"], device, kind, workers=count))
    return tuple(places)


def _label(node: Mapping[str, Any], name: str) -> str | None:
    labels = node.get("Labels") or {}
    value = labels.get(name)
    return None if value is None else str(value)


def _name(node: Mapping[str, Any]) -> str:
    """Returns what people call a machine: its node's name, unless that is only its address."""
    address, name = node.get("NodeManagerAddress"), node.get("NodeName")
    found = name if name and name != address else node.get("NodeManagerHostname")
    return str(found or address or node["NodeID"][:8])
