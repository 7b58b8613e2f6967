"""`tenon bench`: the measurements of `tenon.bench`, and where their results go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rich_click as click

from tenon.cli import make_model
from tenon.cli.options import SecretText, engine_options, key_or_environment
from tenon.cli.suggest import SuggestingGroup
from tenon.config import EngineArgs
from tenon.errors import ConfigError
from tenon.util.terminal import counting


@click.group("bench", cls=SuggestingGroup)
def command() -> None:
    """Measure tenon, or any server with an OpenAI-compatible API.

    docs/benchmarks.md says what each figure means.
    """


def _table(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Refuse a table that is not ours before anything is measured."""
    from tenon.bench import report

    if path and not ctx.resilient_parsing:
        report.columns(path)
    return path


def _outputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options that say where a result goes."""
    for option in (
        click.option(
            "--csv",
            "csv_path",
            metavar="PATH",
            callback=_table,
            help="Append the figures to this table, as a row (ops: a row for each timing).",
        ),
        click.option(
            "--json", "json_path", metavar="PATH", help="Write one JSON object; - is standard output."
        ),
    ):
        function = option(function)
    return function


def _whole(name: str, default: int, help: str, low: int = 1) -> Callable[..., Any]:
    return click.option(
        name, type=click.IntRange(low), default=default, show_default=True, metavar="N", help=help
    )


@command.command("latency")
@_whole("--input-len", 512, "Tokens of each prompt.")
@_whole("--output-len", 128, "Tokens generated for each prompt.")
@_whole("--batch-size", 1, "Requests at once.")
@_whole("--num-iters", 3, "Measured runs; the medians count.")
@click.option("--profile", is_flag=True, help="Add the time per kind of op, prefill and decode apart.")
@click.option(
    "--cached", is_flag=True, help="Add the time to the first token of prompts in the prefix cache."
)
@_outputs
@engine_options()
def latency(
    engine: EngineArgs,
    input_len: int,
    output_len: int,
    batch_size: int,
    num_iters: int,
    profile: bool,
    cached: bool,
    json_path: str | None,
    csv_path: str | None,
) -> None:
    """One batch of equal requests: prefill and decode speed, and how near the limits of this machine."""
    from tenon.bench import latency as benchmark

    _here(engine)
    engine.enable_prefix_caching = cached
    shape = benchmark.Shape(input_len, output_len, batch_size)
    with counting("measuring", num_iters + 1) as step:
        result = benchmark.measure(engine.resolve(), shape, num_iters, step, profile, cached)
    given = {
        "input_len": input_len,
        "output_len": output_len,
        "batch_size": batch_size,
        "iterations": num_iters,
    }
    _deliver("latency", engine.model, given | _changed(engine), result, json_path, csv_path)


@command.command("throughput")
@_whole("--input-len", 256, "Tokens of each prompt.")
@_whole("--output-len", 128, "Tokens generated for each prompt.")
@_whole("--prefix-len", 0, "Tokens at the start of each prompt that several share.", low=0)
@_whole("--num-prefixes", 1, "Different shared beginnings.")
@_whole("--num-prompts", 64, "Requests in all.")
@_outputs
@engine_options()
def throughput(
    engine: EngineArgs,
    input_len: int,
    output_len: int,
    prefix_len: int,
    num_prefixes: int,
    num_prompts: int,
    json_path: str | None,
    csv_path: str | None,
) -> None:
    """Many requests at once, offline, through `tenon.LLM`."""
    from tenon.bench import throughput as benchmark
    from tenon.bench.prompts import PromptShape

    _here(engine)
    given = {
        "input_len": input_len,
        "output_len": output_len,
        "prefix_len": prefix_len,
        "num_prefixes": num_prefixes,
        "num_prompts": num_prompts,
    }
    shape = PromptShape(input_len, prefix_len, num_prefixes)
    result = benchmark.measure(engine, shape, output_len, num_prompts)
    _deliver("throughput", engine.model, given | _changed(engine), result, json_path, csv_path)


@command.command("embed")
@_whole("--input-len", 32, "Tokens of each text.")
@_whole("--batch-size", 64, "Texts at once.")
@_whole("--num-iters", 10, "Measured batches; the median counts.")
@_outputs
@engine_options()
def embed(
    engine: EngineArgs,
    input_len: int,
    batch_size: int,
    num_iters: int,
    json_path: str | None,
    csv_path: str | None,
) -> None:
    """Vectors of a model that gives them, offline, through `tenon.LLM`; MODEL is minilm, for example."""
    from tenon.bench import embed as benchmark

    _here(engine)
    given = {"input_len": input_len, "batch_size": batch_size, "iterations": num_iters}
    result = benchmark.measure(engine, input_len, batch_size, num_iters)
    _deliver("embed", engine.model, given | _changed(engine), result, json_path, csv_path)


@command.command("serve")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The server.")
@click.option("--model", metavar="TEXT", help="Model name to ask for (default: the first that it lists).")
@click.option("--api-key", type=SecretText(), help="Key of the server (default: TENON_API_KEY).")
@click.option("--chat", is_flag=True, help="Chat completions with prompts of words, instead of token ids.")
@_whole("--input-len", 256, "Tokens of each prompt.")
@_whole("--output-len", 128, "Most tokens generated for each prompt.")
@_whole("--prefix-len", 0, "Tokens at the start of each prompt that several share.", low=0)
@_whole("--num-prefixes", 1, "Different shared beginnings.")
@_whole("--num-prompts", 64, "Requests in all.")
@_whole("--num-warmups", 1, "Requests before the clock starts.", low=0)
@_whole("--vocab-size", 32000, "Token ids are drawn from 256 up to this.", low=257)
@_whole("--seed", 0, "Seed of prompts and arrivals.", low=0)
@click.option(
    "--request-rate", type=float, metavar="X", help="Requests a second, Poisson (default: all at once)."
)
@click.option("--max-concurrency", type=click.IntRange(1), metavar="N", help="Most requests in flight.")
@click.option("--ignore-eos", is_flag=True, help="Ask for exactly --output-len tokens.")
@click.option(
    "--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token."
)
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds until a request failed."
)
@_outputs
def serve(json_path: str | None, csv_path: str | None, **options: Any) -> int:
    """Load a server with an OpenAI-compatible API, and time what it streams."""
    import asyncio

    from tenon.bench import load

    plan, warmups = asyncio.run(_plan(**options))
    if warmups.prompts:
        asyncio.run(load.run(warmups))
    with counting("requests", len(plan.prompts)) as step:
        samples, duration = asyncio.run(load.run(plan, step))
    result = load.figures(samples, duration)
    for reason, detail in load.first_failures(samples).items():
        click.echo(f"{reason}: {detail}", err=True)
    given = {name: value for name, value in options.items() if name not in {"api_key", "model"}}
    _deliver("serve", plan.model, given, result, json_path, csv_path)
    return 0 if result["completed"] else 1


async def _plan(**options: Any) -> tuple[Any, Any]:
    """The load, and the warm-up before it."""
    import dataclasses

    from tenon.bench.load import Load
    from tenon.bench.prompts import PromptShape, text_prompts, token_prompts
    from tenon.util.http import Target, first_model

    rate = options["request_rate"]
    if rate is not None and not rate > 0:
        raise ConfigError(f"--request-rate must be above 0, not {rate:g}")
    target = Target.parse(options["url"])
    key = key_or_environment(options["api_key"])
    shape = PromptShape(options["input_len"], options["prefix_len"], options["num_prefixes"])
    count = options["num_prompts"] + options["num_warmups"]
    prompts: Any = (
        text_prompts(count, shape, options["seed"])
        if options["chat"]
        else token_prompts(count, shape, options["vocab_size"], options["seed"])
    )
    plan = Load(
        target=target,
        model=options["model"] or await first_model(target, key),
        prompts=prompts[options["num_warmups"] :],
        output_len=options["output_len"],
        request_rate=rate,
        max_concurrency=options["max_concurrency"],
        ignore_eos=options["ignore_eos"],
        temperature=options["temperature"],
        chat=options["chat"],
        api_key=key,
        timeout_s=options["timeout"],
        seed=options["seed"],
    )
    return plan, dataclasses.replace(plan, prompts=prompts[: options["num_warmups"]], request_rate=None)


@command.command("startup")
@_whole("--num-iters", 3, "Starts; the median counts.")
@_outputs
@engine_options()
def startup(engine: EngineArgs, num_iters: int, json_path: str | None, csv_path: str | None) -> None:
    """Time `tenon serve` from its start until /ready answers, and weigh its memory."""
    from tenon.bench import startup as benchmark

    _here(engine)
    changed = _changed(engine)
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in changed.items()
        if not isinstance(value, bool)
    ]
    flags += [
        f"--{'' if value else 'no-'}{name.replace('_', '-')}"
        for name, value in changed.items()
        if isinstance(value, bool)
    ]
    with counting("starting", num_iters) as step:
        result = benchmark.measure([engine.model, *flags], num_iters, step)
    _deliver("startup", engine.model, {"iterations": num_iters} | changed, result, json_path, csv_path)


@command.command("ops")
@click.argument("op", nargs=-1, help="Names of ops (default: all).")
@click.option("--reference", is_flag=True, help="Time the definitions in torch too.")
@click.option("--seconds", type=float, default=0.05, show_default=True, help="Time for each case.")
@_outputs
def ops(
    op: tuple[str, ...], reference: bool, seconds: float, json_path: str | None, csv_path: str | None
) -> None:
    """Time every op on every backend and instruction set of this machine."""
    from tenon.bench import ops as benchmark
    from tenon.util.terminal import working

    with working("timing ops"):
        result = benchmark.measure(op, reference, seconds)
    given = {"ops": " ".join(op) or "all", "seconds": seconds}
    _deliver("ops", "", given, result, json_path, csv_path)


command.add_command(make_model.command)


def _here(engine: EngineArgs) -> None:
    """Pull the model first, so that it is not part of what is measured."""
    from tenon.cli.models import ensure_here

    if engine.load_format != "oracle":
        ensure_here(engine.model, engine.revision)


def _changed(engine: EngineArgs) -> dict[str, Any]:
    """Engine arguments that are not the default."""
    import dataclasses

    return {
        field.name: getattr(engine, field.name)
        for field in dataclasses.fields(engine)
        if field.name != "model" and getattr(engine, field.name) != field.default
    }


def _deliver(
    kind: str,
    model: str,
    configuration: dict[str, Any],
    result: dict[str, Any],
    json_path: str | None,
    csv_path: str | None,
) -> None:
    """Show a result, or write it as JSON; append it to a CSV file."""
    from tenon.bench import report

    whole = report.stamp(kind, model, configuration) | result
    if csv_path:
        report.append_csv(whole, csv_path)
    if json_path:
        report.write_json(whole, json_path)
    if json_path != "-":
        report.show(whole, sys.stdout)
