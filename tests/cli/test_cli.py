"""The command line as a whole; each command's own tests are beside this file."""

import subprocess
import sys

import click
import pytest

from tenon import cli

PATHS = [(name,) for name in cli.COMMANDS] + [
    ("bench", name) for name in ("latency", "throughput", "serve", "startup", "ops")
]


def tenon(*arguments, **options):
    command = [sys.executable, "-m", "tenon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_help_names_every_command():
    done = tenon("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from tenon import cli; cli.run(['--help']); "
        "heavy = [m for m in ('numpy', 'torch', 'starlette', 'zmq') if m in sys.modules]; "
        "print(*heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_and_option_has_help(path, capsys):
    assert cli.run([*path, "--help"]) == 0
    assert "Usage: tenon " + " ".join(path) in capsys.readouterr().out
    command = cli.tenon
    for name in path:
        command = command.get_command(click.Context(command), name)
    assert command.help
    assert all(getattr(option, "help", None) for option in command.params)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], "serv"),
        (["srve"], "did you mean serve?"),
        (["bench", "lat"], "no command 'lat'"),
        (["serve", "--prot", "1"], "did you mean --port?"),
        (["bench", "serve", "--vocab-size", "100"], "--vocab-size"),
        (["chat", "m", "--url", "127.0.0.1:9", "--seed", "1"], "leave out MODEL, --seed"),
        (["pull", "smollm2", "--revision", "v1"], "revision"),
        (["generate", "-p", ""], "the prompt is empty"),
        (["generate", "-p", "a", "m", "b"], "given twice"),
        (["generate", "Why is the sky blue?"], "put -p before"),
        (["serve", "--no-such-option"], "tenon serve --help"),
        (["serve", "--max-num-seqs", "many"], "--max-num-seqs"),
        (["serve", "--dtype", "int3"], "--dtype"),
        (["serve", "--max-num-seqs", "0"], "--max-num-seqs"),
        (["serve", "--stall-seconds", "1"], "--stall-seconds"),
        (["serve", "--step-timeout", "3.9"], "--step-timeout"),
        (["serve", "--drain-seconds", "-1"], "--drain-seconds"),
        (["serve", "--limit", "body_seconds=nan"], "body_seconds"),
        *[
            (["serve", flag, value], flag)
            for flag in (
                "--drain-seconds",
                "--stall-seconds",
                "--step-timeout",
                "--load-timeout",
                "--restart-window",
                "--sse-keep-alive-interval",
                "--load-wait-seconds",
            )
            for value in ("nan", "inf", "-inf")
        ],
        (["serve", "no-such-model"], "no-such-model"),
        (["generate", "--temperature", "-1", "-p", "x"], "temperature"),
        (["bench", "ops", "no_such_op"], "no_such_op"),
        (["bench", "serve", "--url", "127.0.0.1:9"], "no server"),
        (["bench", "serve", "--request-rate", "0"], "--request-rate"),
        (["chat", "--url", "ftp://x"], "URL"),
    ],
)
def test_a_mistake_gets_one_line(arguments, words, capsys):
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_model_of_vectors_answers_no_prompt(minilm, capsys):
    assert cli.run(["generate", str(minilm), "x"]) == 2
    assert "does not generate text; it gives embeddings" in capsys.readouterr().err


def test_an_option_unlike_all_others_suggests_none(capsys):
    assert cli.run(["serve", "--bogus"]) == 2
    assert capsys.readouterr().err == "error: tenon serve has no option --bogus (see tenon serve --help)\n"


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_names_of_options_are_whole_in_eighty_columns(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([*path, "--help"]) == 0
    words = capsys.readouterr().out.replace("/", " ").split()
    command = cli.tenon
    for name in path:
        command = command.get_command(click.Context(command), name)
    assert {flag for param in command.params for flag in param.opts if flag.startswith("--")} <= set(words)
    assert {flag for param in command.params for flag in param.secondary_opts} <= set(words)


def test_the_module_is_the_command():
    done = tenon("serve", "no-such-model")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no model named")
    assert "tenon" in tenon("--version").stdout


def test_collect_env(capsys):
    assert cli.run(["collect-env"]) == 0
    assert "processor" in capsys.readouterr().out
    assert cli.run(["collect-env", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_an_interrupt_is_no_error(monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.tenon, "main", interrupt)
    assert cli.run([]) == 130
