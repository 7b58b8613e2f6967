import msgspec
import pytest

from tenon.config import EngineArgs, EngineConfig, make_args, parse_bytes, read_models
from tenon.errors import ConfigError


def test_defaults_resolve_and_survive_the_wire():
    config = EngineArgs().resolve()
    assert config.served_model_name == ("smollm2",)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=EngineConfig) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2GiB", 2 << 30),
        ("500 MB", 500 * 10**6),
        ("1.5g", 1_500_000_000),
        ("17", 17),
        (17, 17),
        ("3kib", 3072),
    ],
)
def test_parse_bytes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "GiB", "2 parsecs", "-1", "1e9", "0x10"])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="size in bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "int3"},
        {"scheduling_policy": "lifo"},
        {"activations": "int4"},
        {"activations": "int8", "dtype": "float32"},
        {"max_num_seqs": 0},
        {"max_num_seqs": True},
        {"max_num_batched_tokens": "many"},
        {"block_size": 48},
        {"max_model_len": -1},
        {"kv_cache_memory": "lots"},
        {"kv_cache_memory": 0},
        {"max_logprobs": 10**6},
        {"model": ""},
        {"enable_prefix_caching": "yes"},
        {"served_model_name": "a,,b"},
        {"seed": -1},
        {"num_threads": 0},
        {"gpu_memory_utilization_": 1},
    ],
)
def test_wrong_argument_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        make_args(**wrong).resolve()


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/name", "org/name"), ("/data/m.gguf", "m.gguf"), ("./dir/m/", "m"), ("smollm2", "smollm2")],
)
def test_served_name_does_not_show_paths(model, name):
    assert EngineArgs(model=model).resolve().served_model_name == (name,)


def test_every_running_request_fits_a_step():
    assert EngineArgs(max_num_batched_tokens=8).resolve().max_num_seqs == 8


def test_every_argument_has_help():
    import dataclasses

    assert all(field.metadata["help"] for field in dataclasses.fields(EngineArgs))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "not valid TOML"),
        ("", "has no model"),
        ("a = 1", r"write a table \[a\]"),
        ("[a]\ndtype = 'auto'", r"write a table \[a\]"),
        ("[a]\nmodel = 'm'\nnope = 1", r"models.toml, \[a\]: nope is not an engine argument"),
        ("[b]\nmodel = 'm'\n[a]\nmodel = 'm'\nblock_size = 33", r"models.toml, \[a\]: block_size must be"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_file_of_models_is_explained(tmp_path, text, message):
    file = tmp_path / "models.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_models(file, EngineArgs())
