"""Measure a model row by row against this machine's limits, and write the table and the raw figures.

    python bench/table.py MODEL --out bench/results/table_MACHINE_YYYYMM [--only "prefill 512,decode"]

Each row is one `tenon bench` command in a process of its own, so that it can be repeated alone; the serving
row starts `tenon serve` on this machine and loads it from the same cores. Fractions are of roofs probed in
the row's own process.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TENON = [sys.executable, "-m", "tenon"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parent)}
PORT = 18431

Figures = dict[str, Any]


def prefill(row: Figures) -> tuple[str, str]:
    return (
        f"{row['prefill_tokens_per_s']:.0f} tok/s",
        f"{row['roof']['prefill_fraction']:.0%} of the peak of its products",
    )


def decode(row: Figures) -> tuple[str, str]:
    roof = row["roof"]
    of = f"{roof['decode_fraction']:.0%} of read bandwidth, {roof['bandwidth_gb_per_s']:.1f} GB/s"
    return f"{row['decode_tokens_per_s']:.0f} tok/s", of


def own_time(row: Figures) -> tuple[str, str]:
    return f"{row['own_us_per_step']:.0f} µs a step", "target: 100 µs at batch 1, 1 ms at 256"


def cached(row: Figures) -> tuple[str, str]:
    hit = row["cached_ttft_ms"]
    return f"{hit:.1f} ms", f"{row['ttft_ms'] / hit:.0f} times lower than cold, {row['ttft_ms']:.0f} ms"


def serving(row: Figures) -> tuple[str, str]:
    itl = row["p99_itl_ms"] / row["median_itl_ms"]
    details = f"median TTFT {row['median_ttft_ms']:.0f} ms, TPOT {row['median_tpot_ms']:.1f} ms, "
    details += f"p99 ITL {itl:.1f} times its median, {row['failed']} failed"
    return f"{row['output_tokens_per_s']:.0f} output tok/s", details


def startup(row: Figures) -> tuple[str, str]:
    return f"{row['ready_s']:.2f} s", f"resident {row['rss_bytes'] / 1e6:.0f} MB, weights included"


class Row(NamedTuple):
    work: str
    command: str  # of `tenon bench`, before the model
    say: Callable[[Figures], tuple[str, str]]


ROWS = (
    Row("prefill 512", "latency --input-len 512 --output-len 2", prefill),
    Row("prefill 2048", "latency --input-len 2048 --output-len 2", prefill),
    Row("prefill 8000", "latency --input-len 8000 --output-len 2 --num-iters 1", prefill),
    Row("decode from position 8", "latency --input-len 8 --output-len 65", decode),
    Row("decode from position 1024", "latency --input-len 1024 --output-len 65", decode),
    Row("decode, batch of 4", "latency --input-len 64 --output-len 65 --batch-size 4", decode),
    Row("decode, batch of 16", "latency --input-len 64 --output-len 65 --batch-size 16", decode),
    Row("decode, batch of 64", "latency --input-len 64 --output-len 33 --batch-size 64", decode),
    Row("the engine's own time, batch 1", "latency --input-len 8 --output-len 65", own_time),
    Row(
        "the engine's own time, batch 256", "latency --input-len 8 --output-len 9 --batch-size 256", own_time
    ),
    Row("first token, 2000 cached", "latency --input-len 2000 --output-len 2 --cached", cached),
    Row("start until /ready", "startup", startup),
)
SERVING = Row(
    "serving, 16 at a time, 256 in / 128 out",
    "serve --num-prompts 64 --max-concurrency 16 --input-len 256 --output-len 128 --ignore-eos",
    serving,
)


def run(command: str, model: list[str]) -> Figures:
    """The figures of one `tenon bench` command."""
    line = [*TENON, "bench", *shlex.split(command), *model, "--json", "-"]
    done = subprocess.run(line, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def server(model: list[str]) -> Iterator[None]:
    process = subprocess.Popen(
        [*TENON, "serve", *model, "--port", str(PORT)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            time.sleep(0.1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the server ended before it was ready") from None
        yield
    finally:
        process.terminate()
        process.wait(60)


def measure(model: list[str], only: list[str]) -> Iterator[tuple[Row, Figures]]:
    """The rows whose names begin with one of `only`."""
    for row in ROWS:
        if row.work.startswith(tuple(only)):
            yield row, run(row.command, model)
    if SERVING.work.startswith(tuple(only)):
        with server(model):
            yield SERVING, run(f"{SERVING.command} --url http://127.0.0.1:{PORT}", [])


def page(name: str, options: str, measured: list[tuple[Row, Figures]]) -> str:
    first = measured[0][1]
    roof = first["roof"]
    lines = [
        f"# {name} against the machine's limits",
        "",
        f"{first['machine']}, {first['date']}, tenon at {first['commit']}; activations: "
        f"{first['engine']['activations']}.",
        "",
        f"Roofs of the first row: read bandwidth {roof['bandwidth_gb_per_s']:.1f} GB/s over the weights' "
        f"size and {roof['dram_gb_per_s']:.1f} GB/s from DRAM; products in float "
        f"{roof['peak_tflop_per_s']:.3f} TFLOP/s, of bytes {roof['int8_peak_top_per_s']:.3f} TOP/s.",
        "",
        "| work | measured | against | command: `tenon bench` |",
        "|---|---|---|---|",
    ]
    for row, figures in measured:
        value, against = row.say(figures)
        lines.append(f"| {row.work} | {value} | {against} | `{row.command}{options}` |")
    return "\n".join([*lines, "", "Raw figures: the JSON file beside this page."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model row by row against this machine's limits.")
    parser.add_argument("model", help="what `tenon serve` takes")
    parser.add_argument("--activations", default="auto")
    parser.add_argument(
        "--only", default="", help="rows whose names begin with one of these, split by commas"
    )
    parser.add_argument("--out", metavar="PATH", help="write PATH.json and PATH.md (default: print the page)")
    args = parser.parse_args()
    options = "" if args.activations == "auto" else f" --activations {args.activations}"
    measured = []
    for row, figures in measure([args.model, *shlex.split(options)], args.only.split(",")):
        print(f"{row.work}: {', '.join(row.say(figures))}", file=sys.stderr, flush=True)
        measured.append((row, figures))
    text = page(Path(args.model).name, options, measured)
    if not args.out:
        print(text, end="")
        return
    Path(f"{args.out}.md").write_text(text)
    raw = {row.work: figures for row, figures in measured}
    Path(f"{args.out}.json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
