import csv
import io
import json

import pytest

from tenon.bench import report
from tenon.bench.stats import summary
from tenon.errors import ConfigError

RESULT = {
    **dict.fromkeys(("benchmark", "commit", "machine", "date"), "x"),
    "model": "m",
    "configuration": {"seed": 1},
    "tpot_ms": 1.23456789,
    "gap": float("nan"),
    "rows": [{"a": 1}],
}


def test_json_has_no_nan(capsys):
    report.write_json(RESULT, "-")
    assert json.loads(capsys.readouterr().out) == RESULT | {"gap": None}


def test_json_into_a_file(tmp_path):
    report.write_json(RESULT, str(tmp_path / "x.json"))
    assert json.loads((tmp_path / "x.json").read_text())["tpot_ms"] == RESULT["tpot_ms"]
    with pytest.raises(ConfigError, match="cannot write"):
        report.write_json(RESULT, str(tmp_path / "no" / "x.json"))


def test_csv_rows_are_appended_and_new_columns_join(tmp_path):
    path = str(tmp_path / "runs.csv")
    report.append_csv(RESULT, path)
    report.append_csv(RESULT, path)
    report.append_csv(RESULT | {"ready_s": 0.5}, path)
    report.append_csv(RESULT | {"model": "n", "rows": []}, path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["m", "m", "m", "n"]
    assert rows[0]["configuration.seed"] == "1"
    assert [row["ready_s"] for row in rows] == ["", "", "0.5", ""]
    assert [row["a"] for row in rows] == ["1", "1", "1", ""]
    assert rows[0]["tpot_ms"] == "1.23457"
    with pytest.raises(ConfigError, match="cannot write"):
        report.append_csv(RESULT, str(tmp_path))


def test_each_timing_is_a_row(tmp_path):
    path = tmp_path / "runs.csv"
    report.append_csv(
        RESULT | {"rows": [{"op": "a", "seconds": 1e-6}, {"op": "b", "seconds": 2.0}]}, str(path)
    )
    rows = list(csv.DictReader(path.open(newline="")))
    assert [(row["op"], row["seconds"], row["model"]) for row in rows] == [
        ("a", "1e-06", "m"),
        ("b", "2", "m"),
    ]


@pytest.mark.parametrize("text", ["name,age\nada,36\n", "just a note\n", '"benchmark,model\n'])
def test_a_table_of_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a table of tenon bench"):
        report.append_csv(RESULT, str(path))
    assert path.read_text() == text


def test_a_table_of_timings_fits_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    row = {"op": "rope_kv_write", "case": "tokens=512 bfloat16", "target": "cpu-amx-emulated"}
    row |= {"seconds": 1.23456e-4, "gigabytes_per_s": 123.456, "gigaflops_per_s": None}
    out = io.StringIO()
    report.show({"timings": [row]}, out)
    (line,) = [line for line in out.getvalue().splitlines() if "rope" in line]
    assert line.split()[-3:] == ["cpu-amx-emulated", "123", "123"]
    assert all(unit in out.getvalue() for unit in (" us ", "GB/s", "GFLOP/s"))
    assert "…" not in out.getvalue()


def test_a_stamp_says_what_ran_where():
    stamp = report.stamp("latency", "m", {})
    assert set(stamp) == {"benchmark", "model", "configuration", "commit", "machine", "date"}
    assert all(value for name, value in stamp.items() if name != "configuration")


def test_shown_as_lines_and_tables():
    out = io.StringIO()
    report.show(RESULT, out)
    assert "tpot_ms" in out.getvalue()
    assert "configuration.seed" in out.getvalue()


def test_a_distribution_is_one_row():
    out = io.StringIO()
    report.show({"completed": 3} | summary("ttft_ms", [1.0, 2.0, 30.0]), out)
    (row,) = [line for line in out.getvalue().splitlines() if "ttft_ms" in line]
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["11", "2", "24.4", "29.44"]
