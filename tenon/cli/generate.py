"""`tenon generate`: one prompt, one answer on standard output."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import rich_click as click

from tenon.cli.options import engine_options
from tenon.config import EngineArgs
from tenon.core.sampling import SamplingParams
from tenon.errors import ConfigError


@click.command("generate")
@click.option(
    "-p", "--prompt", metavar="TEXT", help="The prompt, without naming MODEL (default: standard input)."
)
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Longest answer, in tokens.")
@click.option(
    "--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token."
)
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Smallest set of this probability.")
@click.option(
    "--top-k", type=int, default=0, show_default=True, help="Only the k likeliest tokens; 0 is all."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given again.")
@click.option("--sampling-seed", type=int, metavar="N", help="Seed, for the same answer again.")
@click.option("--json", "as_json", is_flag=True, help="Print the request's output as one JSON object.")
@engine_options()
@click.argument("text", required=False, metavar="[PROMPT]", help="The prompt, in quotes.")
def command(
    engine: EngineArgs,
    text: str | None,
    prompt: str | None,
    raw: bool,
    max_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    stop: tuple[str, ...],
    sampling_seed: int | None,
    as_json: bool,
) -> None:
    """Answer one prompt, as it comes.

    `tenon generate -p 'Why is the sky blue?'`, `tenon generate smollm2 'Why is the sky blue?'`, or a prompt
    on standard input.
    """
    text = _prompt(engine.model, prompt, text)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        stop=list(stop) or None,
        seed=sampling_seed,
    )
    asyncio.run(_generate(engine, text, raw, params, as_json))


def _prompt(model: str, option: str | None, argument: str | None) -> str:
    """The prompt, wherever it was given. Raises ConfigError when there is none, or two."""
    if option is not None and argument is not None:
        raise ConfigError("the prompt was given twice: as an argument and with -p")
    text = argument if option is None else option
    if text is None:
        if any(map(str.isspace, model)) and not Path(model).exists():
            raise ConfigError(f"{model!r} stands where the model does: put -p before a prompt")
        if sys.stdin.isatty():
            print("Type a prompt, then Ctrl-D (or give it with -p):", file=sys.stderr)
        text = sys.stdin.read()
    if not text.strip():
        raise ConfigError("the prompt is empty")
    return text


async def _generate(args: EngineArgs, text: str, raw: bool, params: SamplingParams, as_json: bool) -> None:
    import msgspec

    from tenon.cli.engine import started
    from tenon.cli.prompt import chat_ids, chat_text

    async with started(args) as engine:
        if engine.pooling is not None:
            purpose = f"{engine.pooling.purpose} of `tenon serve`"
            raise ConfigError(f"{engine.model_name} does not generate text; {purpose}")
        messages = [{"role": "user", "content": text}]
        prompt = text if raw else chat_ids(engine, messages)
        shown = 0
        async with engine.generate(prompt, params) as stream:
            async for output in stream:
                if not as_json:
                    answer = output.outputs[0].text
                    print(answer[shown:], end="", flush=True)
                    shown = len(answer)
        if as_json:
            output.prompt = text if raw else chat_text(engine, messages)
        print(msgspec.json.encode(output).decode() if as_json else "")
