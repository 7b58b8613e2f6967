"""Faults of the tokenizers library are errors of tenon; what is none of them passes."""

import pytest

from tenon.errors import ConfigError, ModelFileError
from tenon.text import native


class PanicException(BaseException):
    pass


def test_errors_become_typed():
    for error in (Exception("why"), ValueError("why"), PanicException("why")):
        with (
            pytest.raises(ModelFileError, match=r"it: .*why"),
            native.errors_as(lambda reason: ModelFileError(f"it: {reason}")),
        ):
            raise error
    for other in (ConfigError("own"), KeyboardInterrupt()):
        with pytest.raises(type(other)), native.errors_as(ModelFileError):
            raise other
