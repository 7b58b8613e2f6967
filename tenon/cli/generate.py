"""`tenon generate`: one prompt, one answer on standard output."""

from __future__ import annotations

import asyncio
import sys

import rich_click as click

from tenon.cli.options import engine_options
from tenon.config import EngineArgs
from tenon.core.sampling import SamplingParams


@click.command("generate")
@click.option("-p", "--prompt", metavar="TEXT", help="The prompt (default: standard input).")
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
def command(
    engine: EngineArgs,
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

    `tenon generate -p 'Why is the sky blue?'`, or a prompt on standard input.
    """
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        stop=list(stop) or None,
        seed=sampling_seed,
    )
    text = sys.stdin.read() if prompt is None else prompt
    asyncio.run(_generate(engine, text, raw, params, as_json))


async def _generate(args: EngineArgs, text: str, raw: bool, params: SamplingParams, as_json: bool) -> None:
    import msgspec

    from tenon.cli.engine import started
    from tenon.cli.prompt import chat_ids

    async with started(args) as engine:
        prompt = text if raw else chat_ids(engine, [{"role": "user", "content": text}])
        shown = 0
        async with engine.generate(prompt, params) as stream:
            async for output in stream:
                if not as_json:
                    answer = output.outputs[0].text
                    print(answer[shown:], end="", flush=True)
                    shown = len(answer)
        print(msgspec.json.encode(output).decode() if as_json else "")
