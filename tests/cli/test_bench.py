import csv
import json
import os
import subprocess
import sys

from tenon import cli
from tests.openai_server import FakeServer, running


def test_bench_serve_prints_one_json_object_and_nothing_else(tmp_path):
    table = tmp_path / "runs.csv"
    with running(FakeServer(gap=0.001, api_key="k")) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tenon", "bench", "serve", "--url", server.url, "--json", "-"),
                *("--num-prompts", "6", "--input-len", "9", "--output-len", "4", "--max-concurrency", "3"),
                *("--csv", str(table)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"TENON_API_KEY": "k"},
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["completed"] == 6
    assert result["output_tokens"] == 24
    assert result["ttft_ms"] > 0
    assert result["tpot_ms"] > 0
    assert result["model"] == "fake"
    assert result["configuration"]["max_concurrency"] == 3
    assert len(server.bodies) == 7  # and one to warm up
    (row,) = csv.DictReader(table.open())
    assert row["completed"] == "6"
    assert "k" not in (row.get("configuration.api_key") or "")


def test_bench_serve_shows_figures(capsys):
    with running() as server:
        assert cli.run(["bench", "serve", "--url", server.url, "--num-prompts=2", "--chat"]) == 0
    assert "e2e_ms" in capsys.readouterr().out


def test_bench_serve_groups_failures_and_says_what_the_first_was(capsys):
    with running(FakeServer(fault="status")) as server:
        assert cli.run(["bench", "serve", "--url", server.url, "--num-prompts=4", "--num-warmups=0"]) == 0
    out, err = capsys.readouterr()
    assert "errors.status 503" in out
    assert err == "status 503: busy\n"


def test_a_server_that_wants_a_key(capsys):
    with running(FakeServer(api_key="k")) as server:
        assert cli.run(["bench", "serve", "--url", server.url]) == 2
    assert "the server wants a key: --api-key or TENON_API_KEY" in capsys.readouterr().err


def test_a_table_of_something_else_is_refused_before_measuring(tmp_path, capsys):
    table = tmp_path / "people.csv"
    table.write_text("name,age\nada,36\n")
    assert cli.run(["bench", "ops", "rms_norm", "--seconds", "60", "--csv", str(table)]) == 2
    assert "people.csv" in capsys.readouterr().err
    assert table.read_text() == "name,age\nada,36\n"


def test_bench_ops_times_a_reference(capsys):
    arguments = ["bench", "ops", "rms_norm", "--reference", "--seconds", "0.001", "--json", "-"]
    assert cli.run(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["op"] for row in result["timings"]} == {"rms_norm"}
    assert any(row["target"] == "reference" and row["seconds"] > 0 for row in result["timings"])
