"""How many threads run kernels, and where."""

from __future__ import annotations

from tenon.ops.select import op


@op(kernel=False)
def set_num_threads(count: int) -> None:
    """Run kernels on `count` threads from now on, in the whole process. Raises ConfigError for a number that
    this machine does not have. References run on the caller's thread, or on torch's own."""


@op(kernel=False)
def pin_caller() -> None:
    """Keep the calling thread, which runs kernels for the rest of its life, to the core that the others leave
    free, if together they have all cores. Threads that it starts later should `tenon.util.cores.roam`."""
