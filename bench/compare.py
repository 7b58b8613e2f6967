"""Run tenon and its peers on one GGUF file, alternately, and write the table and the raw figures.

    python bench/compare.py MODEL.gguf --llama-python PATH --openvino-python PATH --out bench/results/NAME

Each engine is a process of its own that has loaded the model; only one works at a time. A round asks each
engine for every case in turn, so that what the machine does to one it does to all. Ratios are of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tenon import collect_env  # noqa: E402
from tenon.bench import report  # noqa: E402
from tenon.bench.stats import median  # noqa: E402


class Case(NamedTuple):
    """One request: its name, lengths, and which of the two times counts."""

    name: str
    input_len: int
    output_len: int
    phase: str  # prefill or decode

    def tokens_per_s(self, times: dict[str, float]) -> float:
        if self.phase == "prefill":
            return self.input_len / times["prefill_s"]
        return (self.output_len - 1) / times["decode_s"]


CASES = (
    Case("prefill 512", 512, 2, "prefill"),
    Case("decode at 0", 8, 33, "decode"),
    Case("decode at 512", 512, 33, "decode"),
)


class Engine:
    """A peer's process (bench/peers/protocol.py)."""

    def __init__(self, python: str, script: str, model: str, threads: int, *more: str) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / script), model, str(threads), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parent) if python == sys.executable else ""},
        )
        about = self._answer()
        self.name, self.version = about["engine"], about["version"]

    def run(self, case: Case) -> dict[str, float]:
        assert self._process.stdin is not None
        ask = {"input_len": case.input_len, "output_len": case.output_len}
        print(json.dumps(ask), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with status {self._process.wait()}")
        return json.loads(line)


def measure(engines: list[Engine], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Tokens per second: {engine: {case: [one per round]}}, after a round that warms up."""
    found: dict[str, dict[str, list[float]]] = {e.name: {c.name: [] for c in CASES} for e in engines}
    for number in range(rounds + 1):
        for case in CASES:
            for engine in engines:
                rate = case.tokens_per_s(engine.run(case))
                if number:
                    found[engine.name][case.name].append(rate)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found


def roofs(model: str, threads: int) -> dict[str, float]:
    """The limits of the machine, probed in a process of their own."""
    script = f"""import json
from tenon import ops
from tenon.bench import roof
ops.set_num_threads({threads})
print(json.dumps(roof.probe({Path(model).stat().st_size}).figures()))"""
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def page(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    first = next(iter(result["versions"]))
    lines = [
        f"# Engines side by side: {result['model']}",
        "",
        f"{result['machine']}, {result['threads']} threads, {result['date']}, tenon at {result['commit']}.",
        "",
        f"    {result['command']}",
        "",
        "Tokens per second, median (best) of rounds in which engines took turns; the ratio is of medians.",
        "",
        "| | " + " | ".join(result["versions"]) + f" | {first} over the best peer |",
        "|---" * (len(result["versions"]) + 2) + "|",
    ]
    for case in CASES:
        rates = {name: cases[case.name] for name, cases in result["tokens_per_s"].items()}
        peers = [median(samples) for name, samples in rates.items() if not name.startswith(first)]
        cells = [f"{median(samples):.1f} ({max(samples):.1f})" for samples in rates.values()]
        ratio = f"{median(rates[first]) / max(peers):.2f}" if peers else ""
        lines.append(f"| {case.name} | " + " | ".join(cells) + f" | {ratio} |")
    lines += ["", "Roofs, probed before and after (the better of the two counts):", ""]
    lines += [
        f"- {name}: {before:.4g}, {result['roofs'][1][name]:.4g}"
        for name, before in result["roofs"][0].items()
    ]
    lines += [
        "",
        "Versions: " + "; ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    lines += ["", "Raw figures: the JSON file beside this page."]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run tenon and its peers on one GGUF file, alternately.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--llama-python", metavar="PATH", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--openvino-python", metavar="PATH", help="an interpreter that has openvino-genai")
    parser.add_argument("--int8", action="store_true", help="tenon once more, with --activations int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=collect_env.usable_cores())
    parser.add_argument("--out", metavar="PATH", help="write PATH.json and PATH.md (default: print the page)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    peers = (
        (sys.executable, "tenon_engine.py"),
        (sys.executable if args.int8 else None, "tenon_engine.py", "int8"),
        (args.llama_python, "llamacpp.py"),
        (args.openvino_python, "genai.py"),
    )
    engines = [
        Engine(python, script, args.model, args.threads, *more) for python, script, *more in peers if python
    ]
    before = roofs(args.model, args.threads)
    rates = measure(engines, args.rounds)
    for engine in engines:
        engine.stop()
    name = Path(args.model).name
    flags = [f"--{peer}-python PATH" for peer in ("llama", "openvino") if getattr(args, f"{peer}_python")]
    flags += ["--int8"] * args.int8
    stamp = report.stamp("compare", name, {})
    result = {
        **{key: stamp[key] for key in ("model", "commit", "machine", "date")},
        "command": f"python bench/compare.py {name} {' '.join(flags)} --rounds {args.rounds}",
        "threads": args.threads,
        "versions": {engine.name: engine.version for engine in engines},
        "cases": {case.name: case._asdict() for case in CASES},
        "tokens_per_s": rates,
        "roofs": [before, roofs(args.model, args.threads)],
    }
    if not args.out:
        print(page(result))
        return
    Path(f"{args.out}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{args.out}.md").write_text(page(result))


if __name__ == "__main__":
    main()
