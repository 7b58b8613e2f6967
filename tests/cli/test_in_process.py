"""Commands that load an engine: with the built-in test model, and one conversation with the default model."""

import io
import json
import sys

import pytest

from tenon import cli

ORACLE = ("--load-format", "oracle")


def run(capsys, *arguments):
    status = cli.run(list(arguments))
    return status, *capsys.readouterr()


def test_generate_prints_an_answer(capsys):
    arguments = ("generate", "--raw", "-p", "abc", "--max-tokens", "8", *ORACLE)
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert out.strip()
    assert run(capsys, *arguments)[1] == out


def test_generate_takes_a_prompt_after_the_model(capsys):
    arguments = ("--raw", "--max-tokens", "8", *ORACLE)
    assert run(capsys, "generate", "m", "abc", *arguments) == run(capsys, "generate", "-p", "abc", *arguments)


@pytest.mark.parametrize("text", ["", " \n"])
def test_generate_wants_something_on_standard_input(capsys, monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    status, out, err = run(capsys, "generate", *ORACLE)
    assert (status, out) == (2, "")
    assert "the prompt is empty" in err


def test_generate_as_json_holds_the_rendered_prompt(capsys, smollm2_gguf):
    sizes = ("--max-tokens", "2", "--max-model-len", "512")
    status, out, err = run(capsys, "generate", str(smollm2_gguf), "Hello there", "--json", *sizes)
    assert status == 0, err
    assert "Hello there<|im_end|>" in json.loads(out)["prompt"]


def test_generate_as_json_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc"))
    status, out, _ = run(capsys, "generate", "--raw", "--json", "--max-tokens", "5", *ORACLE)
    assert status == 0
    result = json.loads(out)
    assert result["prompt"] == "abc"
    assert len(result["outputs"][0]["token_ids"]) == 5


def test_explain_names_every_op(capsys):
    from tenon.ops import select

    status, out, _ = run(capsys, "explain", *ORACLE)
    assert status == 0
    assert all(name in out for name in select.OPS)
    assert "max_model_len" in out
    status, out, _ = run(capsys, "explain", "--json", *ORACLE)
    engine = json.loads(out)["engine"]
    for name in ("kv_cache_bytes", "max_model_len", "kv_blocks", "block_size", "load_seconds"):
        assert isinstance(engine[name], int | float), name
    status, out, _ = run(capsys, "explain", "--json", "--no-load")
    assert list(json.loads(out)["instruction_sets"].values()).count("used") == 1
    assert {row["op"] for row in json.loads(out)["ops"]} == set(select.OPS)


def test_bench_latency_prints_json(capsys):
    sizes = ("--input-len", "20", "--output-len", "4", "--batch-size", "2", "--num-iters", "1")
    status, out, _ = run(capsys, "bench", "latency", *sizes, "--json", "-", *ORACLE)
    assert status == 0
    result = json.loads(out)
    assert {"prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "tpot_ms", "roof"} <= set(result)
    assert result["configuration"]["batch_size"] == 2
    assert isinstance(result["engine"]["kv_cache_bytes"], int)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--num-threads", "1000"), ("--kv-cache-memory", "900TiB"), ("--seed", "-1")],
)
def test_wrong_engine_options_are_named_as_typed(capsys, flag, value):
    status, out, err = run(capsys, "generate", "-p", "x", flag, value, *ORACLE)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {flag}")
    assert "TENON_" not in err


def test_bench_throughput(capsys):
    sizes = ("--input-len", "20", "--output-len", "4", "--num-prompts", "3")
    status, out, _ = run(capsys, "bench", "throughput", *sizes, "--json", "-", *ORACLE)
    assert status == 0
    result = json.loads(out)
    assert (result["requests"], result["prompt_tokens"], result["output_tokens"]) == (3, 60, 12)


def test_bench_startup(capsys):
    status, out, err = run(capsys, "bench", "startup", "--num-iters", "1", "--json", "-", *ORACLE)
    assert status == 0, err
    result = json.loads(out)
    assert 0 < result["ready_s"] < 60
    assert result["processes"] in (2, 3)  # the engine's; the nursery's comes right after it
    assert result["rss_bytes"] > 1 << 20


def test_bench_startup_says_why_a_server_did_not_start(capsys):
    status, _, err = run(capsys, "bench", "startup", "--max-model-len", "999999999", *ORACLE)
    assert status == 2
    assert "tenon serve ended" in err


def test_chat_holds_a_conversation(capsys, monkeypatch, smollm2_gguf):
    lines = "What is the capital of France?\nAnd of Italy?\n/exit\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    arguments = ("chat", str(smollm2_gguf), "--temperature", "0", "--max-tokens", "12")
    status, out, err = run(capsys, *arguments, "--max-model-len", "512")
    assert status == 0, err
    assert "Paris" in out
    assert "Rome" in out


def test_a_full_conversation_says_so_and_ends_a_pipe(capsys, monkeypatch, smollm2_gguf):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Count.\n" + "word " * 60 + "\nnever\n"))
    arguments = (
        "chat",
        str(smollm2_gguf),
        "--temperature",
        "0",
        "--max-tokens",
        "4",
        "--max-model-len",
        "64",
    )
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out.count("(cut: max_tokens)") == 1
    assert err == "error: the conversation is full; /reset starts a new one\n"


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_a_model_that_is_not_there(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    status, out, err = run(capsys, command, "no-such-model")
    assert (status, out) == (2, "")
    assert err.startswith("error: no model named")
