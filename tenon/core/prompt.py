"""What every front end says of a prompt that cannot run."""

from __future__ import annotations

from tenon.errors import InvalidRequest


def check_input_length(count: int, max_model_len: int, field: str) -> None:
    """An input of `count` tokens, of which nothing is generated. Raises InvalidRequest naming `field`."""
    if count == 0:
        raise InvalidRequest(f"{field}: the input is empty", field)
    if count > max_model_len:
        raise InvalidRequest(
            f"{field}: the input has {count} tokens and the model takes {max_model_len}; shorten it, or set "
            "truncate_prompt_tokens to -1 to have its end cut off",
            field,
            "context_length_exceeded",
        )


def check_length(count: int, max_model_len: int, field: str = "prompt") -> None:
    """A prompt of `count` tokens must leave room for one more. Raises InvalidRequest naming `field`."""
    if count == 0:
        raise InvalidRequest(f"{field}: the prompt is empty", field)
    if count >= max_model_len:
        raise InvalidRequest(
            f"{field}: the prompt has {count} tokens and the model's context is {max_model_len}; "
            "shorten it to leave room for at least one more",
            field,
            "context_length_exceeded",
        )
