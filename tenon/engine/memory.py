"""How much memory the KV cache may take: what this machine, and the cgroup this process is in, have left.

A container's limit is not in /proc/meminfo, and page cache counts against it but is given back on demand.
"""

from __future__ import annotations

from pathlib import Path

from tenon.errors import ConfigError

MIN_HEADROOM = 512 << 20
HEADROOM_SHARE = 0.25  # of what is free: activations, the front end, and whatever else runs here


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that can be allocated now without swapping. `root` is where /proc and /sys are (for tests)."""
    limits = [_meminfo(root / "proc/meminfo")]
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            limits += _cgroup_free(
                root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file"
            )
        elif "memory" in controllers.split(","):
            limits += _cgroup_free(
                root / "sys/fs/cgroup/memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
    return max(0, min(limits))


def kv_budget(root: Path = Path("/")) -> int:
    """Bytes for the KV cache, chosen from free memory."""
    free = available_bytes(root)
    return free - max(MIN_HEADROOM, int(free * HEADROOM_SHARE))


def plan_blocks(
    *,
    budget: int,
    bytes_per_block: int,
    block_size: int,
    model_len: int,
    wanted_len: int | None,
    max_num_seqs: int,
) -> tuple[int, int]:
    """(number of blocks, max_model_len) for a budget in bytes.

    Never more blocks than all requests could use at once. When not even one request of the model's length
    `model_len` fits, that is shortened; a length that the user asked for (`wanted_len`) is not: ConfigError.
    """
    length = wanted_len or model_len
    most = -(-length // block_size) * max_num_seqs
    num_blocks = min(budget // bytes_per_block, most)
    if num_blocks * block_size >= length:
        return num_blocks, length
    if num_blocks < 2 or wanted_len is not None:
        needed = -(-length // block_size) * bytes_per_block
        raise ConfigError(
            f"a KV cache of {_size(budget)} holds {max(0, num_blocks) * block_size} tokens, fewer than the "
            f"max_model_len of {length}: set kv_cache_memory to {_size(needed)} or more, or a lower length"
        )
    return num_blocks, num_blocks * block_size


def _meminfo(path: Path) -> int:
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise ConfigError("this system does not tell its free memory: give --kv-cache-memory")


def _cgroup_free(mount: Path, path: str, limit: str, usage: str, inactive: str) -> list[int]:
    """What each level of the hierarchy leaves; inside a container its own level is the mount itself."""
    free = []
    level = Path(path.lstrip("/"))
    for relative in dict.fromkeys([level, *level.parents, Path()]):
        directory = mount / relative
        limit_text, usage_text = _lines(directory / limit), _lines(directory / usage)
        if not (limit_text and usage_text and limit_text[0].isdigit()):
            continue  # "max", or no such level here
        stat = dict(line.split()[:2] for line in _lines(directory / "memory.stat") if " " in line)
        free.append(int(limit_text[0]) - int(usage_text[0]) + int(stat.get(inactive, 0)))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{max(0, count) / 2**20:.1f} MiB"
