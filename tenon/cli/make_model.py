"""`tenon bench make-model`."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from tenon.config import DEFAULT_MODEL

DTYPES = "f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, mxfp4 or f8_e4m3"


@click.command("make-model")
@click.argument(
    "out", metavar="OUT", type=click.Path(path_type=Path), help="The .gguf file or directory to write."
)
@click.option("--like", "family", required=True, metavar="FAMILY", help="Model family: llama, qwen3, ...")
@click.option(
    "--size", required=True, metavar="NAME", help="Size that the family has, such as 0.6B, or tiny."
)
@click.option(
    "--format",
    type=click.Choice(["gguf", "safetensors"]),
    default="gguf",
    show_default=True,
    metavar="NAME",
    help="gguf: one file. safetensors: a directory in Hugging Face format.",
)
@click.option(
    "--dtype", metavar="NAME", help=f"Type of the weights: {DTYPES} (default: q4_1; safetensors: bf16)."
)
@click.option("--layers", type=click.IntRange(1), metavar="N", help="Only so many of the layers.")
@click.option("--experts", type=click.IntRange(1), metavar="N", help="Only so many experts in each layer.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the weights."
)
@click.option(
    "--tokenizer",
    default=DEFAULT_MODEL,
    show_default=True,
    metavar="MODEL",
    help="Model in GGUF to take it from.",
)
def command(
    out: Path,
    family: str,
    size: str,
    format: str,
    dtype: str | None,
    layers: int | None,
    experts: int | None,
    seed: int,
    tokenizer: str,
) -> None:
    """Write a model of a real shape with random weights, to measure speed with.

    It loads and generates like a trained model, in other engines too; the text means nothing.
    """
    from tenon.bench import make_model
    from tenon.cli.models import ensure_here
    from tenon.util.terminal import loading

    files = ensure_here(tokenizer)
    start = time.perf_counter()
    with loading(str(out), "writing") as progress:
        made = make_model.make_model(
            family,
            size,
            out,
            tokenizer=files,
            format=format,
            dtype=dtype,
            layers=layers,
            experts=experts,
            seed=seed,
            progress=progress,
        )
    click.echo(
        f"{made.path}: {made.parameters / 1e6:,.1f} million parameters, {made.num_bytes / 1e6:,.1f} MB "
        f"of weights, written in {time.perf_counter() - start:.1f} s"
    )
