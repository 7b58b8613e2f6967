"""What a request has cost, in OpenAI's shape."""

import msgspec

from tenon.server.schema.usage import Usage


def test_usage():
    plain = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert msgspec.to_builtins(Usage.of(5, 3, 2)) == plain
    reasoning = {"completion_tokens_details": {"reasoning_tokens": 0}}
    assert msgspec.to_builtins(Usage.of(5, 3, 2, 0)) == plain | reasoning
