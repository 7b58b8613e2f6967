"""Small faults are put into the code that must not fail, one at a time, and its tests have to notice them.

    mutate.py TARGET [--sample N] [--seed S] [--only MUTANT ...]

mutmut (https://mutmut.readthedocs.io) makes the mutants of every function, finds out which tests run it, and
runs these in a fork per mutant. Here it gets a copy of the tree with the sources and tests of one target, and
a random sample of the mutants where there are too many. What a test draws at random is always the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
KILLED = {"killed", "timeout", "segfault", "suspicious"}


class Target(msgspec.Struct, frozen=True):
    sources: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "sampling": Target(("tenon/core/sampling.py",), ("tests/core/test_sampling.py",)),
    "limits": Target(("tenon/server/limits.py",), ("tests/server/test_limits.py",)),
    "stop": Target(("tenon/text/detokenize.py",), ("tests/text/test_detokenize.py",)),
    "parse": Target(
        ("tenon/parse/*.py",),
        tuple(
            f"tests/parse/test_{name}.py"
            for name in ("detect", "formats", "machine", "source", "thinking", "values")
        ),
    ),
    "formats": Target(
        # not packed.py and paddle.py, which whole models test: that takes too long
        tuple(f"tenon/formats/{name}.py" for name in ("gguf", "mapped", "safetensors", "shards", "small")),
        tuple(f"tests/formats/test_{name}.py" for name in ("gguf", "mapped", "safetensors", "small")),
    ),
    "schema": Target(("tenon/server/schema/*.py",), ("tests/server/schema",)),
    "cache": Target(("tenon/cache/*.py",), ("tests/cache",)),
    "scheduler": Target(("tenon/engine/scheduler.py",), ("tests/engine/test_scheduler.py",)),
}


def workplace(name: str) -> Path:
    """A directory in which mutmut finds what it needs, and nothing else."""
    target = TARGETS[name]
    place = ROOT / "build" / "mutate" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for part in ("tenon", "tests", "fuzz", "bench", "scripts"):
        (place / part).symlink_to(ROOT / part)
    options = {
        "source_paths": ["tenon"],
        "only_mutate": list(target.sources),
        "also_copy": ["fuzz", "bench", "scripts"],
        "pytest_add_cli_args_test_selection": list(target.tests),
        "track_dependencies": False,  # only of use to a run that goes on where another ended
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "--hypothesis-profile=mutation"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    project = (ROOT / "pyproject.toml").read_text() + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n"
    (place / "pyproject.toml").write_text(project)
    return place


def mutmut(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    environment = os.environ | {"TENON_TEST_SEED": "1", "PYTHONPATH": ".", "TENON_MUTATION": "1"}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def output(place: Path, *arguments: str) -> str:
    run = mutmut(place, *arguments)
    if run.returncode:
        raise SystemExit(f"mutmut {arguments[0]} failed:\n{run.stdout[-6000:]}{run.stderr[-3000:]}")
    return run.stdout


def prepare(place: Path) -> None:
    """Makes the mutants, runs the tests once, and learns what they run. No command does that alone: it is
    what `run` does before it finds that no mutant has the name asked for."""
    run = mutmut(place, "run", "--max-children", "1", "no such mutant")
    if "nothing matches" not in run.stderr:
        raise SystemExit(f"the tests do not pass without a mutant:\n{run.stdout[-6000:]}{run.stderr[-3000:]}")


def statuses(place: Path) -> dict[str, str]:
    """What became of every mutant."""
    lines = (line.strip().rpartition(": ") for line in output(place, "results", "--all", "true").splitlines())
    return {mutant: status for mutant, _, status in lines if mutant}


def report(place: Path, results: dict[str, str]) -> None:
    for mutant, status in sorted(results.items()):
        if status not in KILLED:
            print(output(place, "show", mutant))
    modules: dict[str, Counter[str]] = {}
    for mutant, status in results.items():
        modules.setdefault(mutant.rpartition(".")[0], Counter())[status] += 1
    for module, counts in sorted(modules.items()):
        print(line(module, counts))
    print(line("all", sum(modules.values(), Counter())))


def line(name: str, counts: Counter[str]) -> str:
    total, killed = counts.total(), sum(counts[status] for status in KILLED)
    return f"{name:36} {total:4} mutants {killed:4} killed {100 * killed / total:5.1f} %   {dict(counts)}"


def chosen(mutants: Iterable[str], count: int, seed: int) -> list[str]:
    """At most `count` of them."""
    listed = sorted(mutants)
    return random.Random(seed).sample(listed, count) if len(listed) > count else listed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--sample", type=int, default=150, help="of more mutants only so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of the sample")
    parser.add_argument("--only", nargs="+", metavar="MUTANT", help="these, which survived another time")
    options = parser.parse_args()
    place = workplace(options.target)
    prepare(place)
    everything = statuses(place)
    mutants = options.only or chosen(everything, options.sample, options.seed)
    print(f"{options.target}: {len(mutants)} of {len(everything)} mutants, --seed {options.seed}", flush=True)
    output(place, "run", "--max-children", "1", *mutants)
    results = statuses(place)
    report(place, {mutant: results[mutant] for mutant in mutants})
    return 0


if __name__ == "__main__":
    sys.exit(main())
