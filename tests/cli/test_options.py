import dataclasses

import rich_click as click
from click.testing import CliRunner

from tenon.cli.options import as_flags, engine_options
from tenon.config import EngineArgs


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
