import json
import math

from tenon import cli
from tests.models.encoders import save
from tests.text.test_inputs import word_piece


def test_bench_embed(tmp_path, seed, capsys):
    _, files = save("bert", "BertModel", tmp_path, seed, vocab_size=14)
    word_piece().save(str(files.directory / "tokenizer.json"))
    arguments = ["bench", "embed", str(tmp_path), "--batch-size=3", "--input-len=5", "--num-iters=2"]
    assert cli.run([*arguments, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["configuration"] == {"input_len": 5, "batch_size": 3, "iterations": 2}
    assert result["texts_per_s"] > 0
    assert math.isclose(result["texts_per_s"] * 5, result["tokens_per_s"])
    assert result["best_batch_s"] <= result["batch_s"]
