import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tenon import LLM, SamplingParams, cli
from tenon.bench import make_model as making
from tenon.bench.make_model import VOCABULARIES, blueprint, make_model, shrunk, sizes
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError
from tenon.formats.gguf import open_gguf
from tenon.util import plugin
from tests.models.families import FAMILIES, KINDS, published_shapes

SIZED = [(family, size) for family in FAMILIES for size in sizes(family)]


@pytest.fixture
def vocabulary(smollm2_gguf):
    return ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent)


def greedy(path):
    llm = LLM(str(path), kv_cache_memory="64MiB", max_model_len=256)
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=1)
    (output,) = llm.generate(["The capital of France is"], params, use_tqdm=False)
    return output.outputs[0]


@pytest.mark.parametrize(("family", "size"), SIZED)
def test_a_size_has_the_tensors_that_transformers_gives_it(family, size):
    config = {key: value for key, value in sizes(family)[size].items() if key != "quantization_config"}
    settings = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **settings))
    theirs = published_shapes(model)
    module = plugin.load("tenon.models", family)
    assert {tensor.name: tensor.shape for tensor in blueprint(module, config, None)} == theirs


def test_sizes_are_what_their_names_say():
    counts = {}
    for family, size in SIZED:
        config = sizes(family)[size]
        config = config | {name: 151936 for name in VOCABULARIES if name in config}
        tensors = blueprint(plugin.load("tenon.models", family), config, None)
        counts[family, size] = sum(torch.Size(tensor.shape).numel() for tensor in tensors)
    assert counts["qwen3", "0.6B"] == 596_049_920  # as published
    assert counts["qwen3", "4B"] == 4_022_468_096
    assert counts["qwen3_moe", "30B-A3B"] == 30_532_122_624


@pytest.mark.parametrize(("format", "family"), KINDS)
def test_what_is_made_generates_text_that_varies(family, format, tmp_path, vocabulary, seed):
    path = tmp_path / ("m.gguf" if format == "gguf" else "m")
    made = make_model(family, "tiny", path, tokenizer=vocabulary, format=format, seed=seed)
    assert made.parameters > 3_000_000
    output = greedy(path)
    assert len(set(output.token_ids)) > 3  # of 64; real sizes repeat nothing
    assert all(-30 < logprob.logprob < 0 for position in output.logprobs for logprob in position.values())


@pytest.mark.parametrize("dtype", ["q4_k", "q8_0", "f16"])
def test_types_of_a_gguf_file(dtype, tmp_path, vocabulary, seed, monkeypatch):
    llama = plugin.load("tenon.models", "llama")
    monkeypatch.setitem(llama.SIZES, "wide", {**llama.TINY, "hidden_size": 256, "intermediate_size": 320})
    path = tmp_path / "m.gguf"
    make_model("llama", "wide", path, tokenizer=vocabulary, dtype=dtype, seed=seed)
    tensors = open_gguf((path,)).tensors
    types = {name: tensors[name].dtype for name in tensors}
    table = "f16" if dtype == "f16" else "q8_0"
    assert types["token_embd.weight"] == types["output.weight"] == table
    assert types["blk.0.attn_norm.weight"] == "f32"
    assert types["blk.1.ffn_up.weight"] == dtype
    assert types["blk.1.ffn_down.weight"] == ("q8_0" if dtype == "q4_k" else dtype)  # 320 columns
    assert len(set(greedy(path).token_ids)) > 6


def test_the_same_seed_gives_the_same_file(tmp_path, vocabulary):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_model("qwen3", "tiny", tmp_path / name, tokenizer=vocabulary, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_shards_and_transformers(tmp_path, vocabulary, monkeypatch, seed):
    monkeypatch.setattr(making, "SHARD_BYTES", 100_000)
    path = tmp_path / "m"
    make_model("qwen3", "tiny", path, tokenizer=vocabulary, format="safetensors", dtype="f32", seed=seed)
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.chat_template
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        expected = int(model(**ids).logits[0, -1].argmax())
    llm = LLM(str(path), kv_cache_memory="64MiB", max_model_len=256, dtype="float32")
    (output,) = llm.generate(
        ["The capital of France is"], SamplingParams(temperature=0, max_tokens=1), use_tqdm=False
    )
    assert list(output.prompt_token_ids) == ids["input_ids"][0].tolist()
    assert output.outputs[0].token_ids[0] == expected


@pytest.mark.parametrize(
    ("family", "size", "options", "says"),
    [
        ("gpt", "tiny", {}, "no family 'gpt'; there are .*llama"),
        ("llama", "7T", {}, "llama has no size '7T'; it has tiny, 135M"),
        ("llama", "tiny", {"dtype": "q3"}, "dtype must be one of f32"),
        ("llama", "tiny", {"format": "safetensors", "dtype": "q4_1"}, "bf16, f8_e4m3, not q4_1"),
        ("llama", "tiny", {"layers": 3}, "layers must be 1 to 2, not 3"),
        ("llama", "tiny", {"experts": 2}, "this model has no experts"),
        ("qwen3_moe", "tiny", {"experts": 5}, "experts must be 1 to 4, not 5"),
    ],
)
def test_refusals(family, size, options, says, tmp_path, vocabulary):
    with pytest.raises(ConfigError, match=says):
        make_model(family, size, tmp_path / "m", tokenizer=vocabulary, **options)
    assert not list(tmp_path.iterdir())


def test_fewer_layers_and_experts(tmp_path, vocabulary):
    config = {
        "num_hidden_layers": 3,
        "layer_types": ["a", "b", "c"],
        "num_experts": 8,
        "eos_token_id": [1, 2],
    }
    wanted = {"num_hidden_layers": 2, "layer_types": ["a", "b"], "num_experts": 4, "eos_token_id": [1, 2]}
    assert shrunk(config, 2, 4) == wanted
    made = make_model(
        "glm4_moe", "106B-A12B", tmp_path / "m", tokenizer=vocabulary, format="safetensors", layers=1
    )
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    assert made.parameters < 1_000_000_000  # it was 106


def test_fewer_layers_are_of_the_same_kinds():
    config = {
        "num_hidden_layers": 10,
        "layer_types": [*"ssssfssssf"],
        "num_kv_shared_layers": 4,
        "first_k_dense_replace": 3,
        "n_routed_experts": 8,
        "zero_expert_num": 4,
    }
    assert shrunk(config, 6, 4) == {
        "num_hidden_layers": 6,
        "layer_types": [*"ssssfs"],
        "num_kv_shared_layers": 1,  # layers of both kinds are left to lend
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
    }


def test_nothing_is_overwritten(tmp_path, vocabulary):
    with pytest.raises(ConfigError, match="exists already"):
        make_model("llama", "tiny", tmp_path, tokenizer=vocabulary)


def test_a_tokenizer_that_is_no_gguf_file(tmp_path):
    directory = ModelFiles("hf", (), "x", tmp_path)
    with pytest.raises(ConfigError, match=r"must come from a \.gguf file"):
        make_model("llama", "tiny", tmp_path / "m", tokenizer=directory)


def test_the_command(tmp_path, smollm2_gguf, capsys):
    out = tmp_path / "m.gguf"
    arguments = ["--like", "llama", "--size", "tiny", "--tokenizer", str(smollm2_gguf), str(out)]
    assert cli.run(["bench", "make-model", *arguments]) == 0
    assert "6.4 million parameters" in capsys.readouterr().out
    assert cli.run(["bench", "make-model", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err
