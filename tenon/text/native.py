"""What the native library `tokenizers` raises, as errors of tenon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenon.errors import TenonError


@contextmanager
def errors_as(make: Callable[[str], TenonError]) -> Iterator[None]:
    """In the block, whatever goes wrong in the library becomes `make(reason)`: it raises plain Exception for
    what it refuses, and what it did not expect is a panic, which is no Exception and would end a thread."""
    try:
        yield
    except TenonError:
        raise
    except Exception as error:
        raise make(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise make(f"a fault in the tokenizers library: {error}") from None
