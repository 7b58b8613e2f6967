"""The machine code of the AMX kernels, on processors without AMX: a signal handler (amx_trap.cpp) executes
its instructions. The bits must be those of AVX-512, and no instruction one that a processor would refuse."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tenon.kernels.cpu.linear import linear, pack_linear
from tenon.ops import harness
from tenon.ops.arrays import BFLOAT16
from tests.kernels.cpu.test_bits import raw
from tests.kernels.cpu.test_linear import raw_tensor
from tests.kernels.cpu.test_pool import python

HERE = Path(__file__).parent
NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
COMPILE = ("g++", "-std=c++20", "-O3", "-mavx512f", "-ffp-contract=off")

ENOUGH = 3000  # products of tiles; a signal takes up to 50 microseconds


def why_not():
    features = _native.cpu_features()
    if features["amx_state"]:
        return "this machine has AMX: the other tests run it"
    if missing := [name for name in NEEDS if not features[name]]:
        return f"this processor has no {', '.join(missing)}"
    return None if shutil.which("g++") else "no g++ to compile the trap with"


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    library = tmp_path_factory.mktemp("trap") / "amx_trap.so"
    subprocess.run([*COMPILE, "-shared", "-fPIC", HERE / "amx_trap.cpp", "-o", library], check=True)
    return str(library)


@pytest.mark.parametrize("name", ["linear", "attention", "latent_attention", "index_select", "moe_experts"])
def test_machine_code_has_the_bits_of_avx512(name, trap, seed):
    code = f"from tests.kernels.cpu.test_amx_machine_code import compare; compare({name!r}, {seed})"
    status, output, error = python(code, LD_PRELOAD=trap, PYTHONPATH=str(HERE.parents[2]))
    if output == "no amx":
        pytest.skip("not in this build: its compiler was too old")
    assert (status, output) == (0, "done"), error


def compare(name, seed):
    """What a process does that has the trap."""
    _native.assume_amx()
    if "amx" not in _native.available_isas():
        return print("no amx")
    rng = np.random.default_rng(seed)
    if name == "linear":
        compare_linear_layers(rng)
    else:
        compare_cases(name, rng)
    assert products(), "no tile was multiplied"
    print("done")


def products():
    return ctypes.CDLL(None).amx_trap_products()


def compare_linear_layers(rng):
    """Rows for up to three tiles, outputs and columns that fill no tile."""
    for dtype, columns in (("bf16", int(rng.integers(20, 300))), ("q4_1", 256)):
        outputs = int(rng.integers(1, 70))
        w = pack_linear([raw_tensor(dtype, outputs, columns, rng)], BFLOAT16)
        for scale in (1, 1e-38):  # denormals
            x = (rng.normal(size=(40, columns)) * scale).astype(BFLOAT16)
            for rows in range(1, 41):
                label = f"{dtype} {rows}x{outputs}x{columns}"
                assert_same({name: linear_with(name, x[:rows], w) for name in ("amx", "avx512")}, label)


def linear_with(name, x, w):
    with cpu.variant(name):
        return linear(x, w)


def compare_cases(name, rng):
    amx, avx512 = (harness.Target("cpu", variant) for variant in ("amx", "avx512"))
    for case in rng.permutation(harness.cases(name, int(rng.integers(2**32)))):
        if products() > ENOUGH:
            break
        expected = harness.observe(name, case, avx512)
        for key, array in harness.observe(name, case, amx).items():
            assert_same({"amx": array, "avx512": expected[key]}, f"{case.label}: {key}")


def assert_same(results, label):
    first, second = results.values()
    assert np.array_equal(raw(first), raw(second)), f"{' and '.join(results)} differ: {label}"
