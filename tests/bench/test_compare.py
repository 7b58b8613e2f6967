"""bench/compare.py, with an engine that does nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

FAKE = """import sys
from protocol import prompt, serve

def load():
    assert sys.argv[1:] == ["model.gguf", "2"]
    def measure(input_len, output_len, seed):
        assert len(prompt(input_len, 1000, seed)) == input_len
        print("noise on standard output")
        return input_len / 1000, (output_len - 1) / 100
    return {"engine": "fake", "version": "1"}, measure

serve(load)
"""


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("compare", BENCH / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine(compare, monkeypatch, tmp_path):
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "fake.py").write_text(FAKE)
    (tmp_path / "peers" / "protocol.py").write_text((BENCH / "peers" / "protocol.py").read_text())
    monkeypatch.setattr(compare, "HERE", tmp_path)
    engine = compare.Engine(sys.executable, "fake.py", "model.gguf", 2)
    yield engine
    engine.stop()


def test_engines_take_turns_and_a_page_is_written(compare, engine):
    rates = compare.measure([engine], 2)
    assert rates["fake"]["prefill 512"] == pytest.approx([1000, 1000])
    assert rates["fake"]["decode at 0"] == pytest.approx([100, 100])
    result = {
        **dict.fromkeys(("model", "machine", "threads", "date", "commit", "command"), "x"),
        "versions": {"fake": "1", "slow": "2"},
        "tokens_per_s": rates | {"slow": {name: [50.0, 50.0] for name in rates["fake"]}},
        "roofs": [{"bandwidth_gb_per_s": 10.0}, {"bandwidth_gb_per_s": 11.0}],
    }
    page = compare.page(result)
    assert "| prefill 512 | 1000.0 (1000.0) | 50.0 (50.0) | 20.00 |" in page
    assert "- bandwidth_gb_per_s: 10, 11" in page


def test_an_engine_that_ends_is_reported(compare, monkeypatch, tmp_path):
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "gone.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(compare, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="status 3"):
        compare.Engine(sys.executable, "gone.py", "model.gguf", 2)
