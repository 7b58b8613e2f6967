"""The OpenAI error object."""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, kw_only=True):
    """`param` names the field of the request, where there is one to name."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refused(msgspec.Struct):
    error: Problem
