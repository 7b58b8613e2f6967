"""From what each layer keeps to groups of layers that can share one pool of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import ceil

from tenon.core.spec import KVGroup

GROUP_COST = 0.02  # of all layers' memory: what one more group, hence one more block table, may save at least


def group_layers(layers: Sequence[KVGroup]) -> tuple[KVGroup, ...]:
    """The groups of a model whose layer i keeps what `layers[i]` says, a group of one.

    Layers of a kind are dealt out to groups of equal size, those that see everything first; a group that is
    not full wastes memory, and many groups cost time, so the size is chosen that costs least. Where bounds
    do not save as much, all layers are one group that keeps everything.
    """
    kinds: dict[KVGroup, list[int]] = {}
    for number, layer in enumerate(layers):
        kinds.setdefault(replace(layer, layers=(0,)), []).append(number)
    states = [_group(kind, numbers) for kind, numbers in kinds.items() if kind.kind == "state"]
    blocks = {kind: numbers for kind, numbers in kinds.items() if kind.kind != "state"}
    if not blocks:
        return tuple(states)
    shapes = {(kind.kind, kind.num_kv_heads, kind.head_dim) for kind in blocks}
    assert len(shapes) == 1, f"layers that differ in what they keep cannot share blocks: {shapes}"
    first, *others = sorted(blocks, key=lambda kind: kind.bounded)
    counts = [len(numbers) for numbers in blocks.values()]
    unbounded = 0 if first.bounded else len(blocks[first])
    size = min(range(1, max(counts) + 1), key=lambda size: _cost(counts, unbounded, size))
    kept = _groups([unbounded], size) * size  # layers of a long request
    if others and kept / sum(counts) + GROUP_COST * _groups(counts, size) > 1:
        everything = replace(first, window=0, local_chunk=0)
        return (_group(everything, sorted(chain(*blocks.values()))), *states)
    parts = [
        _group(kind, blocks[kind][start : start + size], size)
        for kind in (first, *others)
        for start in range(0, len(blocks[kind]), size)
    ]
    return (*parts, *states)


def _cost(counts: Sequence[int], unbounded: int, size: int) -> float:
    """Of groups of so many layers, for kinds of which there are `counts`: memory against what layers need,
    which for long requests is that of layers that see everything, and what tables cost."""
    groups = _groups(counts, size)
    memory = groups * size / sum(counts)
    if unbounded:
        memory = 0.75 * _groups([unbounded], size) * size / unbounded + 0.25 * memory
    return memory + GROUP_COST * groups


def _groups(counts: Sequence[int], size: int) -> int:
    return sum(ceil(count / size) for count in counts)


def _group(kind: KVGroup, numbers: Sequence[int], size: int = 0) -> KVGroup:
    return replace(kind, num_layers=size or len(numbers), layers=tuple(numbers))
