import importlib.util
import sys
from pathlib import Path

PATH = Path(__file__).parents[2] / "bench" / "compare_embed.py"
spec = importlib.util.spec_from_file_location("compare_embed", PATH)
compare_embed = importlib.util.module_from_spec(spec)
sys.modules["compare_embed"] = compare_embed
spec.loader.exec_module(compare_embed)


class Peer:
    """Takes twice the time of CPU that it takes by the clock."""

    def __init__(self, name, seconds):
        self.name, self.seconds, self.asked = name, seconds, []

    def run(self, batches):
        self.asked.append(batches)
        return [None], self.seconds, 2 * self.seconds


def test_rates_are_sentences_over_seconds_of_the_rounds_after_the_first():
    texts = [str(i) for i in range(100)]
    peers = [Peer("tenon", 0.5), Peer("sentence-transformers", 2.0)]
    rates = compare_embed.measure(peers, texts, rounds=3)
    assert rates["tenon"]["64"] == {"wall": [128.0] * 3, "cpu": [64.0] * 3}
    assert rates["sentence-transformers"]["1"] == {"wall": [8.0] * 3, "cpu": [4.0] * 3}
    assert peers[0].asked == peers[1].asked
    assert all(len(batch) in (1, 64) for batches in peers[0].asked for batch in batches)
    result = {
        "model": "m", "machine": "x", "threads": 2, "date": "d", "commit": "c", "command": "run",
        "versions": {"tenon": "1", "sentence-transformers": "2"}, "texts": 100,
        "largest_cosine_distance": 1e-5, "sentences_per_s": rates, "load": [0.1, 0.2],
    }  # fmt: skip
    assert "| 64 | wall | 128 (128) | 32 (32) | 4.00 |" in compare_embed.page(result)


def test_texts_are_sentences_of_the_docs():
    texts = compare_embed.sentences(200)
    assert len(set(texts)) == 200
    assert all(len(text.split()) > 2 and "\n" not in text for text in texts)
