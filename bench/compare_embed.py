"""Run tenon and sentence-transformers on one embedding model, alternately; write the table and raw figures.

    python bench/compare_embed.py MODEL_DIRECTORY --rounds 7 --out bench/results/NAME

Each engine is a process of its own that has loaded the model; only one works at a time. Texts are sentences
of this repository's docs. A round times every case on each engine in turn, in seconds on the wall and in
seconds of CPU: on a machine where others work too, the second are what the engine itself took. Ratios are of
medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tenon import collect_env  # noqa: E402
from tenon.bench import report  # noqa: E402
from tenon.bench.stats import median  # noqa: E402

BATCHES = {1: 16, 64: 1}  # sentences at once: calls that are timed together
MAX_COSINE_DISTANCE = 1e-3


def sentences(count: int) -> list[str]:
    """The first `count` sentences of three words or more in docs/."""
    text = "\n".join(path.read_text() for path in sorted((HERE.parent / "docs").glob("*.md")))
    prose = re.sub(r"^( {4}|[|#>]).*$", "", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    found = [" ".join(part.split()) for part in re.split(r"(?<=[.:;?!])\s+|\n\n", prose)]
    return [part for part in dict.fromkeys(found) if len(part.split()) > 2][:count]


class Tenon:
    name = "tenon"

    def __init__(self, model: str, threads: int) -> None:
        from tenon import LLM

        self.llm = LLM(model, num_threads=threads)

    def embed(self, texts: list[str]) -> Any:
        import numpy as np

        outputs = self.llm.embed(texts, truncate_prompt_tokens=-1)
        return np.stack([output.outputs.embedding for output in outputs])

    def version(self) -> str:
        return collect_env.commit() or "unknown"


class SentenceTransformers:
    name = "sentence-transformers"

    def __init__(self, model: str, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(model, device="cpu")

    def embed(self, texts: list[str]) -> Any:
        return self.model.encode(texts, batch_size=64, show_progress_bar=False)

    def version(self) -> str:
        import sentence_transformers
        import torch

        return f"{sentence_transformers.__version__}, torch {torch.__version__}"


def work(pipe: Connection, kind: type[Tenon] | type[SentenceTransformers], model: str, threads: int) -> None:
    """In a process: answers lists of batches of texts with (vectors of all, wall seconds, CPU seconds)."""
    engine = kind(model, threads)
    pipe.send(engine.version())
    while (batches := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = [engine.embed(batch) for batch in batches]
        pipe.send((vectors, time.perf_counter() - wall, time.process_time() - cpu))


class Peer:
    def __init__(self, kind: type[Tenon] | type[SentenceTransformers], model: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = kind.name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, kind, model, threads), daemon=True)
        self._process.start()
        self.version: str = self._pipe.recv()

    def run(self, batches: list[list[str]]) -> tuple[list[Any], float, float]:
        self._pipe.send(batches)
        return self._pipe.recv()

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join(30)


def batches_of(texts: list[str], size: int, number: int) -> list[list[str]]:
    """What a round's case is timed with: other texts in each round."""
    count = BATCHES[size]
    turned = texts[number * size * count % len(texts) :] + texts
    return [turned[i * size : (i + 1) * size] for i in range(count)]


def measure(peers: list[Peer], texts: list[str], rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Sentences per second: {engine: {batch: {"wall": [one per round], "cpu": [...]}}}, after a first one."""
    found: dict[str, Any] = {p.name: {str(b): {"wall": [], "cpu": []} for b in BATCHES} for p in peers}
    for number in range(rounds + 1):
        for size in BATCHES:
            batches = batches_of(texts, size, number)
            for peer in peers:
                _, wall, cpu = peer.run(batches)
                if number:
                    rates = found[peer.name][str(size)]
                    rates["wall"].append(size * len(batches) / wall)
                    rates["cpu"].append(size * len(batches) / cpu)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found


def largest_distance(peers: list[Peer], texts: list[str]) -> float:
    """Of the two engines' embeddings of any text: 1 - cosine similarity."""
    import numpy as np

    (one,), (other,) = (peer.run([texts])[0] for peer in peers)
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
    return float((1 - (one * other).sum(1)).max())


def page(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    mine, other = result["versions"]
    lines = [
        f"# Embeddings: tenon beside sentence-transformers, {result['model']}",
        "",
        f"{result['machine']}, {result['threads']} threads, {result['date']}, tenon at {result['commit']}.",
        "",
        f"    {result['command']}",
        "",
        "Sentences per second, median (best) of rounds in which engines took turns; ratios of medians.",
        "`wall` is by the clock, `CPU` by the seconds of CPU that the engine took (all threads together).",
        "",
        f"| sentences at once | by | {mine} | {other} | ratio |",
        "|---|---|---|---|---|",
    ]
    for size in BATCHES:
        for by in ("wall", "cpu"):
            a, b = (result["sentences_per_s"][name][str(size)][by] for name in (mine, other))
            cells = [f"{median(x):.0f} ({max(x):.0f})" for x in (a, b)]
            label = "CPU" if by == "cpu" else by
            lines.append(f"| {size} | {label} | {cells[0]} | {cells[1]} | {median(a) / median(b):.2f} |")
    lines += [
        "",
        f"Largest cosine distance between the two engines' vectors, over {result['texts']} texts: "
        f"{result['largest_cosine_distance']:.2g}.",
        "",
        "Versions: " + "; ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
        f"Load of the machine before and after: {result['load'][0]:.1f}, {result['load'][1]:.1f}.",
        "",
        "Raw figures: the JSON file beside this page.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    import os

    parser = argparse.ArgumentParser(description="Run tenon and sentence-transformers alternately.")
    parser.add_argument("model", help="a model's directory")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=collect_env.usable_cores())
    parser.add_argument("--out", metavar="PATH", help="write PATH.json and PATH.md (default: print the page)")
    args = parser.parse_args()
    texts = sentences(512)
    load = [os.getloadavg()[0]]
    peers = [Peer(kind, args.model, args.threads) for kind in (Tenon, SentenceTransformers)]
    distance = largest_distance(peers, texts)
    rates = measure(peers, texts, args.rounds)
    for peer in peers:
        peer.stop()
    load.append(os.getloadavg()[0])
    stamp = report.stamp("compare_embed", Path(args.model).name, {})
    result = {
        **{key: stamp[key] for key in ("model", "commit", "machine", "date")},
        "command": f"python bench/compare_embed.py {Path(args.model).name} --rounds {args.rounds} "
        f"--threads {args.threads}",
        "threads": args.threads,
        "versions": {peer.name: peer.version for peer in peers},
        "texts": len(texts),
        "largest_cosine_distance": distance,
        "sentences_per_s": rates,
        "load": load,
    }
    if args.out:
        Path(f"{args.out}.json").write_text(json.dumps(result, indent=1) + "\n")
        Path(f"{args.out}.md").write_text(page(result))
    else:
        print(page(result))
    if distance > MAX_COSINE_DISTANCE:
        raise SystemExit(f"the engines disagree: cosine distance {distance:.2g}")


if __name__ == "__main__":
    main()
