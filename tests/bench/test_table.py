"""bench/table.py: its commands exist, and its page says what they measured."""

import importlib.util
import shlex
from pathlib import Path

import pytest

from tenon.cli.bench import command

BENCH = Path(__file__).parents[2] / "bench"
ROOF = {
    "bandwidth_gb_per_s": 20.0,
    "dram_gb_per_s": 15.0,
    "peak_tflop_per_s": 0.25,
    "int8_peak_top_per_s": 1.0,
    "prefill_fraction": 0.5,
    "decode_fraction": 0.7,
}
LATENCY = {
    "machine": "a machine x2",
    "date": "today",
    "commit": "abc",
    "engine": {"activations": "int16"},
    "roof": ROOF,
    "prefill_tokens_per_s": 900.0,
    "decode_tokens_per_s": 130.0,
    "own_us_per_step": 99.0,
    "ttft_ms": 800.0,
    "cached_ttft_ms": 20.0,
}
SERVE = {
    "output_tokens_per_s": 300.0,
    "median_ttft_ms": 150.0,
    "median_tpot_ms": 40.0,
    "median_itl_ms": 40.0,
    "p99_itl_ms": 200.0,
    "failed": 0,
}
STARTUP = {"ready_s": 0.5, "rss_bytes": 250e6}


@pytest.fixture
def table():
    spec = importlib.util.spec_from_file_location("table", BENCH / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_are_those_of_the_command_line(table):
    for row in [*table.ROWS, table.SERVING]:
        name, *options = shlex.split(row.command)
        found = command.commands[name]
        known = {option for parameter in found.params for option in parameter.opts}
        assert {option for option in options if option.startswith("--")} <= known


def test_page(table):
    kinds = {"latency": LATENCY, "serve": SERVE, "startup": STARTUP}
    measured = [(row, kinds[row.command.split()[0]]) for row in [*table.ROWS, table.SERVING]]
    page = table.page("model.gguf", " --activations int8", measured)
    for said in (
        "900 tok/s | 50% of the peak",
        "130 tok/s | 70% of read bandwidth, 20.0 GB/s",
        "99 µs a step",
        "20.0 ms | 40 times lower than cold, 800 ms",
        "300 output tok/s | median TTFT 150 ms, TPOT 40.0 ms, p99 ITL 5.0 times",
        "0.50 s | resident 250 MB",
        "`latency --input-len 512 --output-len 2 --activations int8`",
    ):
        assert said in page
    assert page.count("\n| ") == len(measured) + 1
