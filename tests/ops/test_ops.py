"""Every op on every backend, and every variant of it, against its reference."""

import numpy as np
import pytest

from tenon import ops
from tenon.ops import harness, select

JUDGED = sorted(name for name, op in select.OPS.items() if op.cases)


@pytest.mark.parametrize("name", JUDGED)
def test_backends_agree_with_the_reference(name, seed):
    for case in harness.cases(name, seed):
        expected = harness.expected(name, case)
        again = harness.expected(name, case)
        assert harness.judge(case, expected, again) is None, f"{case.label}: not what the reference gives"
        for target in harness.targets(name):
            wrong = harness.judge(case, expected, harness.observe(name, case, target))
            assert wrong is None, f"{name} {case.label} on {target}: {wrong}"


def test_every_kernel_op_is_judged():
    assert {name for name, op in select.OPS.items() if op.kernel} == set(JUDGED)


def test_judge_sees_errors(seed):
    case = harness.cases("rms_norm", seed)[0]
    right = harness.expected("rms_norm", case)
    for wrong_value in (np.nan, np.inf, 1e4):
        wrong = {"out0": right["out0"].copy()}
        wrong["out0"][0, 3] = wrong_value
        assert "at (0, 3)" in (harness.judge(case, right, wrong) or "")
    assert "float64" in (harness.judge(case, right, {"out0": right["out0"].astype(np.float64)}) or "")


def test_sample_check_sees_errors(seed):
    case = harness.cases("sample", seed)[2]
    right = harness.expected("sample", case)
    wrong = {"out0": (right["out0"] + 7) % 1000}
    assert "is not what" in (harness.judge(case, right, wrong) or "")


def test_linear_check_sees_errors(seed):
    for case in harness.cases("linear", seed):
        right = harness.expected("linear", case)
        wrong = {"out0": right["out0"].copy()}
        wrong["out0"][-1, -1] = 2 * np.abs(right["out0"]).max() + 1e4
        assert "off by" in (harness.judge(case, right, wrong) or ""), case.label
        wrong["out0"][-1, -1] = np.nan
        assert "off by" in (harness.judge(case, right, wrong) or "")


def test_timing_counts_bytes(seed):
    case = harness.cases("rms_norm", seed, bench=True)[0]
    timing = harness.time_case("rms_norm", case, harness.Target(select.REFERENCE), seconds=0.01)
    assert timing.seconds > 0
    assert timing.gigabytes_per_s == pytest.approx(case.num_bytes / timing.seconds * 1e-9)


@pytest.mark.parametrize(("each", "calls"), [(1.0, 1), (0.02, 4)])
def test_timing_ends_with_its_time(each, calls, monkeypatch):
    made = []
    monkeypatch.setattr(harness, "_timed", lambda run, args: made.append(each) or each)
    case = harness.cases("rms_norm", 0, bench=True)[0]
    assert harness.time_case("rms_norm", case, harness.Target(select.REFERENCE), 0.05).seconds == each
    assert len(made) == calls


def test_references_need_no_bench_size_surprises():
    assert all(op.__doc__ for op in select.OPS.values())
    assert {choice.op for choice in ops.explain()} == set(select.OPS)
