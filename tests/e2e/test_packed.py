"""A packed model through the command line, alone and shared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenon import LLM, SamplingParams, cli
from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
HOLD = """
import json, sys
from tenon import LLM, SamplingParams
llm = LLM(sys.argv[1], max_model_len=256, kv_cache_memory="64MiB")
llm.generate(["Hello"], SamplingParams(max_tokens=2), use_tqdm=False)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def packed(smollm2_gguf, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "smollm2"
    assert cli.run(["pack", str(smollm2_gguf), str(out)]) == 0
    return out


def answer(path):
    llm = LLM(str(path), max_model_len=256, kv_cache_memory="64MiB")
    params = SamplingParams(temperature=0, max_tokens=16, logprobs=2)
    (output,) = llm.chat(QUESTION, params, use_tqdm=False)
    return output.prompt_token_ids, output.outputs[0].text, output.outputs[0].logprobs


def test_the_same_answer_with_the_tokenizer_and_template_of_the_source(packed, smollm2_gguf):
    assert answer(packed) == answer(smollm2_gguf)


def test_processes_share_the_weights(packed):
    """Of the mapping of model.tenon, nearly nothing belongs to one process alone."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(packed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            sizes = mapping(process.pid, "model.tenon")
            print(json.dumps(sizes))
            assert sizes["Rss"] > 80_000  # KB: they are in memory
            assert sizes["Pss"] < 0.6 * sizes["Rss"]  # and half of each belongs to either process
            assert sizes["Private_Dirty"] == sizes["Anonymous"] == 0
    finally:
        for process in processes:
            process.stdin.close()
            process.wait(30)


def mapping(pid, name):
    """Kilobytes of a process's mapping of a file, from /proc/PID/smaps."""
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    part = next(part for part in parts if name in part.split("\n")[0])
    return {key: int(value) for key, value in re.findall(r"(?m)^(\w+): +(\d+) kB", part)}


def test_the_command_says_what_is_wrong(packed, smollm2_gguf, capsys):
    assert cli.run(["pack", str(smollm2_gguf), str(packed)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.run(["generate", str(packed), "x", "--dtype", "float32"]) == 2
    assert "was packed for dtype bfloat16: leave dtype out" in capsys.readouterr().err
