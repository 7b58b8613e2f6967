"""The `tenon` command. Each subcommand is a file of this folder, imported when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import rich_click as click

from tenon.cli.suggest import SuggestingGroup, correction
from tenon.errors import ConfigError, TenonError

# name -> (module, panel of `tenon --help`)
COMMANDS = {
    "serve": ("serve", "Run a model"),
    "chat": ("chat", "Run a model"),
    "generate": ("generate", "Run a model"),
    "run-batch": ("run_batch", "Run a model"),
    "pull": ("pull", "Run a model"),
    "pack": ("pack", "Run a model"),
    "keys": ("keys", "Run a model"),
    "bench": ("bench", "Measure and explain"),
    "explain": ("explain", "Measure and explain"),
    "collect-env": ("environment", "Measure and explain"),
}


class Commands(SuggestingGroup):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, panel = COMMANDS[cmd_name]
        command: click.RichCommand = importlib.import_module(f"tenon.cli.{module}").command
        command.panel = panel
        return command


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from tenon import collect_env

        click.echo(f"tenon {collect_env.version('tenon') or 'from a source tree'}")
        ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.rich_config({"delimiter_slash": "/ "})  # where the names of a pair may break
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def tenon() -> None:
    """Serve large language models: the same tokens in every batch, close to what the hardware can do.

    `tenon serve` starts an OpenAI-compatible server with a small real model; `tenon chat` talks to one here.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a user's error (one line on stderr), 130 interrupted."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Exit status of a command line."""
    try:
        result = tenon.main(arguments, prog_name="tenon", standalone_mode=False)
    except click.NoSuchOption as error:
        where = error.ctx.command_path if error.ctx else "tenon"
        return _complain(f"{where} has no option {correction(error)} (see {where} --help)")
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "tenon"
        return _complain(f"{error.format_message()} (see {where} --help)")
    except click.ClickException as error:
        return _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ConfigError as error:
        from tenon.cli.options import as_flags

        return _complain(as_flags(str(error)))
    except TenonError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        return 141
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
