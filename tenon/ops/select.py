"""Which backend runs an op, and why not another.

An op is a function decorated with `@op`: its docstring is the contract, its body is the definition (the
backend named "reference"), and calling it runs the backend that was selected. A backend is a folder of
`tenon/kernels`; it implements the op `f` of the family `tenon/ops/<family>.py` by a function `f` in
`<family>.py` of that folder.

A backend can decline: `support()` of its package (not built, wrong machine), or `support(op)` of its
family file, return the reason; None means yes. Ops that share an opaque layout (packed weights, a KV cache)
are selected together: the `shares` argument names what they share. The choice is made at the first call and
then fixed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from tenon import env
from tenon.errors import ConfigError, UnsupportedOp
from tenon.util import plugin

REFERENCE = "reference"
_KERNELS = "tenon.kernels"
_TORCH = "torch: pip install torch"
_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Op(Generic[P, R]):
    """One op: callable; `run` is the selected implementation, put there by the first call."""

    def __init__(self, reference: Callable[P, R], shares: str | None, kernel: bool) -> None:
        functools.update_wrapper(self, reference)
        self.name = reference.__name__
        self.family = reference.__module__.rpartition(".")[2]
        self.reference = reference
        self.shares = shares
        self.kernel = kernel
        self.cases: Callable[..., Any] | None = None
        self.run: Callable[P, R] = self._first_call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(*args, **kwargs)

    def with_cases(self, cases: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: `cases(rng)` yields the `tenon.ops.cases.Case`s that judge every backend of this op."""
        self.cases = cases
        return cases

    def _first_call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        choice = choose(self)
        if choice.backend == REFERENCE and not _forced():
            _log.warning("%s runs its slow reference: %s", self.name, _reasons_text(choice.reasons))
        self.run = implementation(self, choice.backend)
        return self.run(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that runs an op, and for every other one why it does not."""

    op: str
    backend: str
    reasons: dict[str, str] = field(default_factory=dict)


OPS: dict[str, Op[..., Any]] = {}
_force: str | None = None
_on_reference: list[Callable[[str], None]] = []


def op(*, shares: str | None = None, kernel: bool = True) -> Callable[[Callable[P, R]], Op[P, R]]:
    """Decorator that makes a function an op. `shares` names the opaque layout it has in common with other
    ops.

    `kernel` is False for ops that only make or describe tensors: they never become part of a captured plan.
    """

    def make(reference: Callable[P, R]) -> Op[P, R]:
        made = Op(reference, shares, kernel)
        OPS[made.name] = made
        return made

    return make


@functools.cache
def backends() -> tuple[str, ...]:
    """Every backend in order of preference; the reference comes last."""
    package = importlib.import_module(_KERNELS)
    found = [name for name in plugin.names(_KERNELS) if _is_backend(package.__name__, name)]
    return (*found, REFERENCE)


def choose(op: Op[..., Any]) -> Choice:
    """The backend for `op`. Raises ConfigError for an unknown forced backend, UnsupportedOp if it
    declines.
    """
    reasons: dict[str, str] = {}
    chosen: str | None = None
    for name in backends():
        reason = declined(op, name)
        if reason is None and chosen is None:
            chosen = name
        else:
            reasons[name] = reason or f"{chosen} comes first"
    if chosen is None:
        raise UnsupportedOp(f"no backend runs {op.name}: {_reasons_text(reasons)}")
    return Choice(op.name, chosen, reasons)


def declined(op: Op[..., Any], backend: str) -> str | None:
    """Why `backend` does not run `op`, counting what is forced and what shares its layout; None if it
    does.
    """
    forced = _forced()
    if forced is not None and backend != forced:
        return f"TENON_BACKEND={forced}"
    for other in _together(op):
        if reason := support(other, backend):
            return reason if other is op else f"shares {op.shares} with {other.name}: {reason}"
    return None


def support(op: Op[..., Any], backend: str) -> str | None:
    """Why `backend` cannot run `op` on this machine, taken alone; None if it can."""
    if backend == REFERENCE:
        return f"needs {_TORCH}" if op.kernel and not _has_torch() else None
    package = importlib.import_module(f"{_KERNELS}.{backend}")
    if reason := package.support():
        return str(reason)
    name = f"{_KERNELS}.{backend}.{op.family}"
    if importlib.util.find_spec(name) is None:
        return f"no {op.name} in this backend"
    module = importlib.import_module(name)
    if not hasattr(module, op.name):
        return f"no {op.name} in this backend"
    family_support = getattr(module, "support", None)
    return family_support(op.name) if family_support else None


def implementation(op: Op[P, R], backend: str) -> Callable[P, R]:
    """The function of `backend` that runs `op`. The reference reports to `on_reference` listeners when it
    runs.
    """
    if backend != REFERENCE:
        function: Callable[P, R] = getattr(
            importlib.import_module(f"{_KERNELS}.{backend}.{op.family}"), op.name
        )
        return function
    if not op.kernel:
        return op.reference

    def run_reference(*args: P.args, **kwargs: P.kwargs) -> R:
        for listener in _on_reference:
            listener(op.name)
        return op.reference(*args, **kwargs)

    return run_reference


def on_reference(listener: Callable[[str], None]) -> None:
    """Call `listener(op name)` whenever a reference runs: a plan being captured is then invalid."""
    _on_reference.append(listener)


def check() -> None:
    """Raises ConfigError if the environment forces a backend that is not there."""
    _forced()


def explain() -> list[Choice]:
    """For every op, the chosen backend and why the others do not run it."""
    return [choose(OPS[name]) for name in sorted(OPS)]


def reset() -> None:
    """Forget all choices, so that the next calls choose anew (after a change of the environment)."""
    for one in OPS.values():
        one.run = one._first_call


@contextlib.contextmanager
def forced(backend: str) -> Iterator[None]:
    """Within the block every op runs on `backend`, as with TENON_BACKEND."""
    global _force
    before, _force = _force, backend
    reset()
    try:
        yield
    finally:
        _force = before
        reset()


def _forced() -> str | None:
    name = _force or env.backend()
    if name is not None and name not in backends():
        raise ConfigError(f"TENON_BACKEND={name}: no such backend; there are {', '.join(backends())}")
    if name == REFERENCE and not _has_torch():
        raise ConfigError(f"TENON_BACKEND=reference: the reference backend needs {_TORCH}")
    return name


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _together(op: Op[..., Any]) -> list[Op[..., Any]]:
    if op.shares is None:
        return [op]
    return [op, *(other for other in OPS.values() if other.shares == op.shares and other is not op)]


def _is_backend(package: str, name: str) -> bool:
    spec = importlib.util.find_spec(f"{package}.{name}")
    return spec is not None and spec.submodule_search_locations is not None


def _reasons_text(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
