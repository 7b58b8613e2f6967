"""How much memory the KV cache may take: what this machine, and the cgroup this process is in, have left.

A container's limit is not in /proc/meminfo, and page cache counts against it but is given back on demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tenon.cache.demand import Demand
from tenon.errors import ConfigError

MIN_HEADROOM = 512 << 20
LEAST_KV = 256 << 20  # of one model among several
HEADROOM_SHARE = 0.25  # of what is free: activations, the front end, and whatever else runs here
SPARE_STATES = 16  # slots of recurrent state beyond those of requests that run
MAX_SLOTS = 2**31 - 1  # of the KV cache: kernels are told places in it as int32


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that can be allocated now without swapping. `root` is where /proc and /sys are (for tests)."""
    free = [limit - used for limit, used in _cgroups(root)]
    return max(0, min([_meminfo(root, "MemAvailable"), *free]))


def total_bytes(root: Path = Path("/")) -> int:
    """Memory that this process could have if nothing else ran: the machine's, or its cgroup's limit."""
    return min([_meminfo(root, "MemTotal"), *(limit for limit, _ in _cgroups(root))])


def kv_budget(root: Path = Path("/"), reserved: int = 0) -> int:
    """Bytes for the KV cache, chosen from free memory less what is `reserved` of it."""
    free = max(0, available_bytes(root) - reserved)
    return free - max(MIN_HEADROOM, int(free * HEADROOM_SHARE))


def asked_budget(asked: int, root: Path = Path("/")) -> int:
    """Bytes for the KV cache, as asked for. Raises ConfigError for more than there is memory."""
    try:
        total = total_bytes(root)
    except ConfigError:  # a system that does not tell
        return asked
    if asked > total:
        raise ConfigError(
            f"kv_cache_memory of {describe_size(asked)} is more than the {describe_size(total)} of memory "
            "here: ask for less, or leave it out to have it chosen from free memory"
        )
    return asked


def share(budget: int, weights: Sequence[int], most: int) -> int:
    """KV cache bytes for each of several models that share `budget` with their weights.

    As many of them, up to `most`, get to be loaded at a time as leave each a cache of `LEAST_KV`; then any so
    many fit together, the heaviest ones included. A model too heavy for that is loaded alone.
    """
    heaviest = sorted(weights, reverse=True)
    for count in range(min(most, len(weights)), 1, -1):
        each = (budget - sum(heaviest[:count])) // count
        if each >= LEAST_KV:
            return each
    return max(LEAST_KV, budget - heaviest[0])


def plan_blocks(
    *,
    budget: int,
    bytes_per_block: int,
    demand: Demand,
    model_len: int,
    wanted_len: int | None,
    max_num_seqs: int,
) -> tuple[int, int]:
    """(number of blocks, max_model_len) for a budget in bytes.

    Never more blocks than all requests could use at once. When not even one request of the model's length
    `model_len` fits, that is shortened; a length that the user asked for (`wanted_len`) is not: ConfigError.
    """
    length = wanted_len or model_len
    most = demand.blocks(length) * max_num_seqs
    num_blocks = min(budget // bytes_per_block, most, MAX_SLOTS // demand.block_size // demand.parts)
    holds = demand.tokens(max(0, num_blocks))
    if holds >= length:
        return num_blocks, length
    if holds < 2 * demand.block_size or wanted_len is not None:
        needed = demand.blocks(length) * bytes_per_block * (2 if demand.stateful else 1)  # half may be states
        raise ConfigError(
            f"a KV cache of {describe_size(budget)} holds {holds} tokens, fewer "
            f"than the max_model_len of {length}: set kv_cache_memory to {describe_size(needed)} or more, "
            "or a lower length"
        )
    return num_blocks, holds


def plan_states(*, budget: int, bytes_per_slot: int, max_num_seqs: int) -> int:
    """Slots of recurrent state: for all that run, a snapshot each, and some of prompts; within half a budget
    in bytes. Where that is less than one for each request, fewer run at a time."""
    wanted = 2 * max_num_seqs + SPARE_STATES
    num_slots = min(wanted, budget // 2 // bytes_per_slot)
    if num_slots < 2:
        size, needed = describe_size(bytes_per_slot), describe_size(4 * bytes_per_slot)
        raise ConfigError(
            f"half a KV cache of {describe_size(budget)} holds no two states of recurrent layers, of {size} "
            f"each: set kv_cache_memory to {needed} or more"
        )
    return num_slots


def _meminfo(root: Path, wanted: str) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) * 1024
    raise ConfigError("this system does not tell its free memory: give --kv-cache-memory")


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, use without page cache) of every level of the cgroups this process is in that has a limit."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            yield from _cgroup_levels(
                root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file"
            )
        elif "memory" in controllers.split(","):
            yield from _cgroup_levels(
                root / "sys/fs/cgroup/memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )


def _cgroup_levels(
    mount: Path, path: str, limit: str, usage: str, inactive: str
) -> Iterator[tuple[int, int]]:
    """Each level of the hierarchy; inside a container its own level is the mount itself."""
    level = Path(path.lstrip("/"))
    for relative in dict.fromkeys([level, *level.parents, Path()]):
        directory = mount / relative
        limit_text, usage_text = _lines(directory / limit), _lines(directory / usage)
        if not (limit_text and usage_text and limit_text[0].isdigit()):
            continue  # "max", or no such level here
        stat = dict(line.split()[:2] for line in _lines(directory / "memory.stat") if " " in line)
        yield int(limit_text[0]), int(usage_text[0]) - int(stat.get(inactive, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def describe_size(count: int) -> str:
    """`1.50 GiB`, `12.0 MiB`."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{max(0, count) / 2**20:.1f} MiB"
