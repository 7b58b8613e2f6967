"""The thread pool and the choice of instruction set."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native

needs_two = pytest.mark.skipif(_native.max_threads() < 2, reason="one core")


@pytest.fixture(autouse=True)
def restored_threads():
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


def python(code, **environment):
    """A fresh interpreter: (exit status, standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64, 1001])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_task_runs_once_in_every_region(threads, tasks):
    _native.set_num_threads(min(threads, _native.max_threads()))
    assert _native.exercise_pool(5, tasks) == [5] * tasks


@pytest.mark.parametrize("task", [0, 1])
def test_an_exception_in_a_task_reaches_the_caller_and_leaves_the_pool_usable(task):
    with pytest.raises(RuntimeError, match="as asked"):
        _native.exercise_pool(1, 2, task)
    assert _native.exercise_pool(3, 2) == [3, 3]


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_numbers_of_threads_out_of_range(count):
    with pytest.raises(ValueError, match="between 1 and"):
        _native.set_num_threads(count)


def test_callers_take_turns():
    """Two engines in one process share the pool."""
    results = []
    callers = [
        threading.Thread(target=lambda: results.append(_native.exercise_pool(200, 9))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [[200] * 9] * 4


@needs_two
def test_idle_costs_no_cpu():
    _native.set_num_threads(2)
    _native.exercise_pool(10, 2)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(1)
    assert time.process_time() - before < 0.01


@needs_two
def test_workers_are_pinned_and_take_no_signals():
    code = """
import os, threading
from tenon.kernels.cpu import _native
own = os.sched_getaffinity(0)
_native.exercise_pool(1, 2)
workers = [int(t) for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
masks = [os.sched_getaffinity(t) for t in workers]
blocked = [line for t in workers for line in open(f"/proc/self/task/{t}/status") if line.startswith("SigBlk")]
assert os.sched_getaffinity(0) == own
_native.pin_caller()
single = all(len(mask) == 1 for mask in masks)  # not under a quota
for threads in 2, 1:
    os.sched_setaffinity(0, own)
    _native.set_num_threads(threads)
    _native.pin_caller()
    pinned = single and threads >= _native.default_threads()  # else cores are left over
    assert len(os.sched_getaffinity(0)) == (1 if pinned else len(own))
print(len(workers), int(blocked[0].split()[1], 16) > 0)
"""
    assert python(code, TENON_NUM_THREADS="2")[1] == "1 True"


def test_a_forked_child_has_a_pool_of_its_own():
    code = """
import os
from tenon.kernels.cpu import _native
_native.exercise_pool(3, 9)
pid = os.fork()
if pid == 0:
    os._exit(0 if _native.exercise_pool(3, 9) == [3] * 9 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), _native.exercise_pool(3, 9) == [3] * 9)
"""
    assert python(code)[1] == "0 True"


def test_environment_sets_threads():
    code = "from tenon.kernels.cpu import _native; print(_native.num_threads())"
    assert python(code, TENON_NUM_THREADS="1")[1] == "1"
    status, _, error = python(code, TENON_NUM_THREADS="100000")
    assert status == 1
    assert "between 1 and" in error


def test_environment_forces_an_instruction_set():
    code = "from tenon.kernels.cpu import _native; print(_native.isa())"
    for name in _native.available_isas():
        assert python(code, TENON_CPU_ISA=name)[1] == name
    status, _, error = python(code, TENON_CPU_ISA="avx1024")
    assert status == 1
    assert "'avx1024' is not available here" in error
    assert "baseline" in error


def test_wrong_environment_is_the_users_error():
    code = "from tenon.kernels import cpu; cpu.support()"
    for variable, value in (("TENON_CPU_ISA", "avx1024"), ("TENON_NUM_THREADS", "0")):
        status, _, error = python(code, **{variable: value})
        assert status == 1
        assert f"ConfigError: {variable}:" in error


def test_the_emulation_is_never_a_default():
    assert python("from tenon.kernels.cpu import _native; print(_native.isa())", TENON_CPU_ISA="")[1] in (
        "amx",
        "avx512-vnni",
        "avx512",
        "avx2",
        "baseline",
    )


def test_features_are_named():
    features = _native.cpu_features()
    assert {"avx2", "avx512f", "amx_tile", "amx_bf16"} <= set(features)
    assert ("avx2" in _native.available_isas()) <= features["avx2"]


@pytest.mark.parametrize("kind", ["f32", "bf16", "int8"])
def test_matrix_peaks(kind):
    for name in _native.available_isas():
        with cpu.variant(name):
            peak = _native.probe_matrix_peak(kind, 1, 0.01)
            assert peak is None if kind == "bf16" and name not in ("amx", "amx-emulated") else True
            assert peak is None or peak > 1e6
    with pytest.raises(ValueError, match="kind of peak"):
        _native.probe_matrix_peak("f64")


def test_read_bandwidth():
    assert _native.probe_read_bandwidth(1 << 22, 1, 0.01) > 1e8
    with pytest.raises(ValueError, match="at least 4096"):
        _native.probe_read_bandwidth(100, 1)
    with pytest.raises(ValueError, match="threads must be"):
        _native.probe_read_bandwidth(1 << 22, 100_000)


@needs_two
def test_regions_end_although_something_else_holds_a_core():
    """A busy process per core: workers come late, the caller does their parts, each once."""
    _native.set_num_threads(_native.max_threads())
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(_native.max_threads())
    ]
    try:
        for tasks in (2, 3, 50):
            assert _native.exercise_pool(2000, tasks) == [2000 % 256] * tasks
    finally:
        for process in busy:
            process.kill()
            process.wait()
