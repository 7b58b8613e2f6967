"""Free memory as the kernel and the cgroups tell it, and what is made of it."""

import pytest

from tenon.cache.demand import Demand
from tenon.core.spec import KVGroup
from tenon.engine.memory import (
    LEAST_KV,
    MIN_HEADROOM,
    asked_budget,
    available_bytes,
    kv_budget,
    plan_blocks,
    plan_states,
    share,
)
from tenon.errors import ConfigError

GIB = 1 << 30


def make_root(tmp_path, available, cgroup="", files=()):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 99999 kB\nMemAvailable: {available >> 10} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in dict(files).items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return tmp_path


def test_without_cgroups_the_machine_decides(tmp_path):
    assert available_bytes(make_root(tmp_path, 8 * GIB)) == 8 * GIB


def test_cgroup_v2_limit_counts_without_page_cache(tmp_path):
    files = {
        "memory.max": 4 * GIB,
        "memory.current": 3 * GIB,
        "memory.stat": f"anon {GIB}\ninactive_file {GIB}\n",
    }
    assert available_bytes(make_root(tmp_path, 8 * GIB, "0::/\n", files)) == 2 * GIB


def test_the_tightest_level_of_a_hierarchy_counts(tmp_path):
    files = {
        "a/memory.max": 2 * GIB,
        "a/memory.current": GIB,
        "a/b/memory.max": "max",
        "a/b/memory.current": 0,
        "a/b/c/memory.max": 5 * GIB,
        "a/b/c/memory.current": GIB,
    }
    assert available_bytes(make_root(tmp_path, 8 * GIB, "0::/a/b/c\n", files)) == GIB


def test_cgroup_v1(tmp_path):
    files = {
        "memory/docker/x/memory.limit_in_bytes": 3 * GIB,
        "memory/docker/x/memory.usage_in_bytes": 2 * GIB,
        "memory/docker/x/memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    root = make_root(tmp_path, 8 * GIB, "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n", files)
    assert available_bytes(root) == 3 * GIB // 2


def test_an_overdrawn_cgroup_has_nothing(tmp_path):
    files = {"memory.max": GIB, "memory.current": 2 * GIB}
    assert available_bytes(make_root(tmp_path, 8 * GIB, "0::/\n", files)) == 0


def test_a_system_that_does_not_tell_asks_for_the_argument(tmp_path):
    with pytest.raises(ConfigError, match="kv-cache-memory"):
        available_bytes(tmp_path)


def test_headroom(tmp_path):
    assert kv_budget(make_root(tmp_path, 8 * GIB)) == 6 * GIB
    assert kv_budget() < available_bytes() + GIB
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {GIB >> 10} kB\n")
    assert kv_budget(tmp_path) == GIB - MIN_HEADROOM


def plan(**fields):
    demand = Demand([KVGroup("full", 1)], 32, 2048)
    defaults = {"bytes_per_block": 100, "demand": demand, "model_len": 320, "wanted_len": None}
    return plan_blocks(**{"budget": 10_000, "max_num_seqs": 64, **defaults, **fields})


def test_blocks_for_a_budget():
    assert plan() == (100, 320)
    assert plan(max_num_seqs=2) == (20, 320), "no more than all requests can use"
    assert plan(wanted_len=33, max_num_seqs=2) == (4, 33)


def test_never_more_places_than_an_int32_counts():
    blocks, _ = plan(budget=2**50, model_len=2**24, max_num_seqs=2**16)
    assert blocks * 32 <= 2**31 - 1 < (blocks + 1) * 32


def test_a_small_budget_shortens_the_context_unless_it_was_asked_for():
    assert plan(budget=500) == (5, 160)
    with pytest.raises(ConfigError, match="kv_cache_memory to 0"):
        plan(budget=500, wanted_len=161)
    with pytest.raises(ConfigError, match="holds 0 tokens"):
        plan(budget=-5)


def test_windows_hold_less():
    """Three groups of which two see 64 tokens, in steps of 32: each of these holds four blocks at a time."""
    groups = [KVGroup("full", 1), KVGroup("full", 1, window=64), KVGroup("full", 1, local_chunk=64)]
    demand = Demand(groups, 32, 32)
    assert plan(demand=demand, budget=1800) == (18, 320)
    assert plan(demand=demand, budget=1700) == (17, 9 * 32)
    assert plan(demand=demand, max_num_seqs=2) == (36, 320)
    assert plan(demand=Demand(groups[1:], 32, 32), budget=800) == (8, 320)


def test_states_get_half():
    assert plan_states(budget=1000, bytes_per_slot=1, max_num_seqs=8) == 32
    assert plan_states(budget=1000, bytes_per_slot=50, max_num_seqs=8) == 10
    with pytest.raises(ConfigError, match="kv_cache_memory to 0"):
        plan_states(budget=1000, bytes_per_slot=251, max_num_seqs=8)


def test_more_than_there_is_memory_is_refused(tmp_path):
    files = {"memory.max": 4 * GIB, "memory.current": 3 * GIB}
    root = make_root(tmp_path, 8 * GIB, "0::/\n", files)
    (root / "proc/meminfo").write_text(f"MemTotal: {16 * GIB >> 10} kB\nMemAvailable: {GIB >> 10} kB\n")
    assert asked_budget(4 * GIB, root) == 4 * GIB
    with pytest.raises(ConfigError, match=r"kv_cache_memory of 4\.10 GiB is more than the 4\.00 GiB of"):
        asked_budget(41 * GIB // 10, root)
    (root / "sys/fs/cgroup/memory.max").write_text("max")
    assert asked_budget(16 * GIB, root) == 16 * GIB
    with pytest.raises(ConfigError, match=r"16\.00 GiB"):
        asked_budget(17 * GIB, root)
    assert asked_budget(17 * GIB, root / "nothing here") == 17 * GIB


@pytest.mark.parametrize(
    ("budget", "weights", "most", "each"),
    [
        (9 * GIB, [GIB, GIB, GIB], 3, 2 * GIB),
        (9 * GIB, [GIB, GIB, GIB], 2, 7 * GIB // 2),  # two at a time: more for each
        (9 * GIB, [GIB, 7 * GIB, GIB], 3, GIB // 2),
        (9 * GIB, [8 * GIB, 8 * GIB], 2, GIB),  # never together
        (GIB, [2 * GIB], 1, LEAST_KV),
    ],
)
def test_several_models_share(budget, weights, most, each):
    assert share(budget, weights, most) == each
