"""`tenon pack`."""

from __future__ import annotations

import time
from pathlib import Path

import rich_click as click

from tenon.config import DTYPES, QUANTIZATIONS


@click.command("pack")
@click.argument("model", help="Name of a pulled model, directory, .gguf file or Hugging Face repo id.")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path), help="The directory to make.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Type of activations that the weights will meet: auto (bfloat16), bfloat16 or float32.",
)
@click.option(
    "--quantization",
    type=click.Choice(QUANTIZATIONS),
    metavar="NAME",
    help="Quantise float weights: int8, or int4 (embedding and head: int8); default: as they are.",
)
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit of a Hugging Face repository.")
def command(model: str, out: Path, dtype: str, quantization: str | None, revision: str | None) -> None:
    """Write a model as the kernels read it, so that it starts at once and processes share its weights.

    `tenon serve OUT` maps the weights into memory and uses them where they lie. OUT has the tokenizer and all
    else that the model needs. docs/packed-models.md says more.
    """
    from tenon.cli.models import ensure_here
    from tenon.models import pack_model
    from tenon.util.terminal import loading

    files = ensure_here(model, revision)
    start = time.perf_counter()
    with loading(files.name, "packing") as progress:
        pack_model(files, out, dtype, quantization, progress)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{out}: {size / 1e6:,.1f} MB, packed in {time.perf_counter() - start:.1f} s")
