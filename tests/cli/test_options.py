import dataclasses

import pytest
import rich_click as click
from click.testing import CliRunner

from tenon.cli.options import as_flags, engine_options
from tenon.config import EngineArgs
from tenon.errors import ConfigError


@click.command()
@click.option("--mine", default=1)
@engine_options()
def command(engine, mine):
    click.echo(repr((engine, mine)))


def invoke(*arguments):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_defaults_are_those_of_engine_args():
    assert invoke() == repr((EngineArgs(), 1))


def test_every_kind_of_value():
    expected = EngineArgs(
        model="m.gguf",
        dtype="float32",
        max_num_seqs=3,
        max_model_len=100,
        kv_cache_memory="2GiB",
        enable_prefix_caching=False,
        served_model_name="a,b",
    )
    given = invoke(
        "m.gguf",
        "--dtype=float32",
        "--max-num-seqs=3",
        "--max-model-len=100",
        "--kv-cache-memory=2GiB",
        "--no-enable-prefix-caching",
        "--served-model-name=a,b",
        "--mine=2",
    )
    assert given == repr((expected, 2))


def test_every_argument_has_a_flag_with_its_help():
    options = {option.name: option for option in command.params}
    for field in dataclasses.fields(EngineArgs):
        assert options[field.name].help.rstrip(".") == field.metadata["help"]


def test_messages_name_flags_as_they_are_typed():
    assert as_flags("set kv_cache_memory to 1, not max_model_len") == (
        "set --kv-cache-memory to 1, not --max-model-len"
    )
    assert as_flags("seed must be whole; a seed") == "--seed must be whole; a seed"
    typed = "give --kv-cache-memory; TENON_NUM_THREADS"
    assert as_flags(typed) == typed


@click.command()
@engine_options(several=True)
def many(engines):
    for engine in engines:
        click.echo(f"{engine.model} {engine.served_model_name} {engine.max_model_len} {engine.dtype}")


def models(*arguments):
    result = CliRunner().invoke(many, arguments)
    if isinstance(result.exception, ConfigError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_several_models(tmp_path):
    default = EngineArgs().model
    assert models() == [f"{default} None None auto"]
    assert models("m", "--served-model-name", "x,y") == ["m x,y None auto"]
    assert models("m", "chat=org/n", "--model", "o=/p/o.gguf", "--dtype=float32") == [
        "m None None float32",
        "org/n ['chat'] None float32",
        "/p/o.gguf ['o'] None float32",
    ]
    path = tmp_path / "a=b.gguf"
    path.touch()
    assert models(str(path)) == [f"{path} None None auto"]


def test_models_from_a_file(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text('[chat]\nmodel = "m"\nmax_model_len = 100\n["org/e"]\nmodel = "n"\ndtype = "float32"\n')
    assert models("--models-file", str(file)) == ["m ['chat'] 100 auto", "n ['org/e'] None float32"]
    assert models("x", "--models-file", str(file), "--max-model-len=7")[0] == "x None 7 auto"
    for flag in ("--served-model-name", "--revision", "--tokenizer", "--chat-template"):
        with pytest.raises(ConfigError, match=f"{flag} is for one model"):
            models("--models-file", str(file), flag, "x")
    with pytest.raises(ConfigError, match="write NAME=MODEL"):
        models("a=")
