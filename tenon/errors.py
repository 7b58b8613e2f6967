"""Errors a user can cause. Each message says what is wrong and what to do about it.

Invariants of tenon itself are `assert`s, never these types.
"""

from __future__ import annotations


class TenonError(Exception):
    """Base of every error that a user of tenon can cause."""


class ConfigError(TenonError):
    """An engine argument, environment variable or command-line option is wrong."""


class InvalidRequest(TenonError):
    """A request is wrong. `param` names the offending field, as the OpenAI error object does."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ModelNotFound(TenonError):
    """A model name cannot be resolved to files; the message says what to do."""


class ModelFileError(TenonError):
    """A model's files are unreadable, malformed, incomplete or of an unsupported kind."""


class UnsupportedModel(ModelFileError):
    """The architecture, tensor type or feature of a model is not supported; names it."""


class EngineDead(TenonError):
    """The engine process is gone; requests in flight end with this."""


class RequestFailed(TenonError):
    """An internal error ended this one request; the engine and every other request go on."""


class DeadlyRequest(TenonError):
    """A request that was in flight when the engine died, twice; it is refused."""


class UnsupportedOp(TenonError):
    """No backend can run an op as asked; lists each backend's reason."""


class Unavailable(TenonError):
    """Something that a request needs is not there at the moment; the same request may succeed later."""
