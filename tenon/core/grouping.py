"""From what each layer keeps to groups of layers that can share one pool of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from math import ceil, lcm

from tenon.core.spec import KVGroup

GROUP_COST = 0.02  # of all layers' memory: what one more group, hence one more block table, may save at least


def group_layers(layers: Sequence[KVGroup]) -> tuple[KVGroup, ...]:
    """The groups of a model whose layer i keeps what `layers[i]` says, a group of one.

    Layers of a kind are dealt out to groups of equal size, those that see everything first; a group that is
    not full wastes memory, and many groups cost time, so the size is chosen that costs least. Where bounds
    do not save as much, all layers are one group that keeps everything. Sizes are memory: of layers that
    keep half as much of a token as others, twice as many make a group.
    """
    kinds: dict[KVGroup, list[int]] = {}
    for number, layer in enumerate(layers):
        kinds.setdefault(replace(layer, layers=(0,)), []).append(number)
    states = [_group(kind, numbers) for kind, numbers in kinds.items() if kind.kind == "state"]
    blocks = {kind: numbers for kind, numbers in kinds.items() if kind.kind != "state"}
    if not blocks:
        return tuple(states)
    assert len({kind.kind for kind in blocks}) == 1, "latent rows and heads cannot share blocks"
    widest = lcm(*(kind.numbers for kind in blocks))
    first, *others = sorted(blocks, key=lambda kind: kind.bounded)
    units = {kind: Fraction(len(blocks[kind]) * kind.numbers, widest) for kind in blocks}
    counts = list(units.values())
    unbounded = Fraction(0) if first.bounded else units[first]
    size = min(range(1, ceil(max(counts)) + 1), key=lambda size: _cost(counts, unbounded, size))
    kept = _groups([unbounded], size) * size  # of a long request
    alike = len({(kind.num_kv_heads, kind.head_dim) for kind in blocks}) == 1
    if alike and others and kept / sum(counts) + GROUP_COST * _groups(counts, size) > 1:
        everything = replace(first, window=0, local_chunk=0)
        return (_group(everything, sorted(chain(*blocks.values()))), *states)
    found = []
    for kind in (first, *others):
        parts = widest // kind.numbers
        places = size * parts
        for start in range(0, len(blocks[kind]), places):
            found.append(_group(replace(kind, parts=parts), blocks[kind][start : start + places], places))
    return (*found, *states)


def _cost(counts: Sequence[Fraction], unbounded: Fraction, size: int) -> float:
    """Of groups of such a size, for kinds that take `counts`: memory against what layers need, which for long
    requests is that of layers that see everything, and what tables cost."""
    groups = _groups(counts, size)
    memory = float(groups * size / sum(counts))
    if unbounded:
        memory = 0.75 * float(_groups([unbounded], size) * size / unbounded) + 0.25 * memory
    return memory + GROUP_COST * groups


def _groups(counts: Sequence[Fraction], size: int) -> int:
    return sum(ceil(count / size) for count in counts)


def _group(kind: KVGroup, numbers: Sequence[int], size: int = 0) -> KVGroup:
    return replace(kind, num_layers=size or len(numbers), layers=tuple(numbers))
