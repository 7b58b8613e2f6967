"""A model's directory is data: whatever it asks for, none of its files is run, whoever starts what where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tenon.bench.make_model import make_model
from tenon.core.files import ModelFiles

ROOT = Path(__file__).parents[2]
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForCausalLM": "evil--other/repository.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.FastTokenizer"],
    "AutoProcessor": "evil.Processor",
}
# Names that something might import: what configs point at, what tools pick up, what tenon itself imports.
NAMES = (
    "evil", "__init__", "modeling_llama", "configuration_llama", "tokenization_llama", "setup", "conftest",
    "sitecustomize", "usercustomize", "json", "numpy", "msgspec", "jinja2", "tokenizers", "zmq", "torch",
    "runpy", "transformers", "llguidance", "ml_dtypes", "custom_generate/generate", "pip",
    "pip/__main__", "pip/__init__",
)  # fmt: skip
CODE = """
import os
with open(os.environ["CANARY"], "a") as file:
    file.write(__file__ + chr(10))
raise SystemExit(99)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, smollm2_gguf) -> Path:
    """A small model that loads, with code in every place where loaders of other projects have run some."""
    directory = tmp_path_factory.mktemp("models") / "hostile"
    files = ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent)
    make_model("llama", "tiny", directory, tokenizer=files, format="safetensors", seed=1)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        path = directory / name
        found = json.loads(path.read_text()) if path.exists() else {}
        found |= {
            "auto_map": AUTO_MAP,
            "trust_remote_code": True,
            "custom_generate": "evil.generate",
            "tokenizer_class": "EvilTokenizer" if name.startswith("tokenizer") else None,
            "custom_pipelines": {"text-generation": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}},
            "quantizer": {"auto_map": AUTO_MAP},
        }
        found["vision_config" if name == "config.json" else "extra"] = {"auto_map": AUTO_MAP}
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    for name in ("processor_config.json", "preprocessor_config.json", "modules.json"):
        modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Transformer"}]
        content = modules if name == "modules.json" else {"auto_map": AUTO_MAP}
        (directory / name).write_text(json.dumps(content))
    for name in NAMES:
        path = directory / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(CODE)
    return directory


# Not `python -m tenon`, which would find a `tenon.py` of the directory before anything of ours runs.
TENON = [sys.executable, "-P", "-c", "from tenon.cli import main; main()"]


def ran(canary: Path) -> str:
    return canary.read_text() if canary.exists() else ""


def test_the_trap_works(hostile, tmp_path):
    """Code there does run where Python is started as usual."""
    variables = os.environ | {"CANARY": str(tmp_path / "canary"), "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", "import evil"], cwd=hostile, env=variables, capture_output=True)
    assert "evil.py" in ran(tmp_path / "canary")


@pytest.mark.parametrize("where", ["within", "elsewhere"])
def test_no_file_of_a_model_is_run(hostile, tmp_path, where):
    """The command and the engine's process it starts; within the model's directory, too."""
    canary = tmp_path / "canary"
    variables = os.environ | {"CANARY": str(canary), "PYTHONPATH": str(ROOT)}
    model = "." if where == "within" else str(hostile)
    command = [*TENON, "generate", model, "Hello", "--max-tokens", "2", "--kv-cache-memory", "64MiB"]
    done = subprocess.run(
        command, cwd=hostile if where == "within" else tmp_path, env=variables, capture_output=True, text=True
    )
    assert not ran(canary)
    assert done.returncode in (0, 2), done.stderr
    serve(model, hostile if where == "within" else tmp_path, variables)
    assert not ran(canary)


def serve(model: str, directory: Path, variables: dict[str, str]) -> None:
    """Until it has answered a request, or has said why it does not."""
    import httpx

    command = [*TENON, "serve", model, "--port", "0", "--kv-cache-memory", "64MiB", "--max-model-len", "256"]
    command += ["--data-dir", str(directory / "data")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=directory, env=variables, text=True, **pipes) as process:
        greeting = process.stdout.readline()
        if greeting:
            url = greeting.partition("curl ")[2].partition("/v1")[0]
            answer = httpx.post(url + "/v1/completions", json={"prompt": "x", "max_tokens": 2}, timeout=60)
            assert answer.status_code == 200, answer.text
        process.terminate()
        error = process.stderr.read()
    assert greeting, f"a model with code beside it is a model nonetheless: {error}"


def test_python_m_tenon_forgets_the_directory(hostile, tmp_path):
    canary = tmp_path / "canary"
    variables = os.environ | {"CANARY": str(canary), "PYTHONPATH": str(ROOT)}
    for command in (["--version"], ["serve", "--help"], ["keys", "list", "--file", "none"]):
        subprocess.run(
            [sys.executable, "-m", "tenon", *command], cwd=hostile, env=variables, capture_output=True
        )
        assert "runpy.py" not in ran(canary)
    assert not ran(canary)


def test_pip_is_not_taken_from_the_directory(hostile, tmp_path):
    canary = tmp_path / "canary"
    variables = os.environ | {
        "CANARY": str(canary), "PYTHONPATH": str(ROOT), "TENON_HOME": str(tmp_path), "PIP_NO_INDEX": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*TENON, "pull", "smollm2"], cwd=hostile, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip could not download" in done.stderr
    assert not ran(canary)
