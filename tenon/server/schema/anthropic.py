"""Bodies of /v1/messages, Anthropic's Messages API."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# --- blocks of content, asked and answered


class Block(msgspec.Struct, kw_only=True, tag_field="type", forbid_unknown_fields=True, omit_defaults=True):
    cache_control: dict[str, Any] | None = None  # no effect: prefixes are cached without being told


class Text(Block, kw_only=True, tag="text"):
    text: str
    citations: list[Any] | None = None


class Thinking(msgspec.Struct, kw_only=True, tag_field="type", tag="thinking", forbid_unknown_fields=True):
    thinking: str
    signature: str = ""


class ToolUse(Block, kw_only=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class ToolResult(Block, kw_only=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[Text] | None = None
    is_error: bool | None = None


# --- what is asked


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Text | Thinking | ToolUse | ToolResult]


class Tool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None  # no effect: arguments are streamed as they come


class Choice(msgspec.Struct, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class ChoiceAuto(Choice, tag="auto"):
    pass


class ChoiceAny(Choice, tag="any"):
    pass


class ChoiceTool(Choice, tag="tool"):
    name: str


class ChoiceNone(Choice, tag="none"):
    pass


class ThinkingEnabled(msgspec.Struct, tag_field="type", tag="enabled", forbid_unknown_fields=True):
    budget_tokens: int


class ThinkingDisabled(msgspec.Struct, tag_field="type", tag="disabled", forbid_unknown_fields=True):
    pass


class ThinkingAdaptive(msgspec.Struct, tag_field="type", tag="adaptive", forbid_unknown_fields=True):
    pass


class JsonFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    effort: str | None = None
    format: JsonFormat | None = None


class Metadata(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    user_id: str | None = None


class CountRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What makes the prompt."""

    model: str | None = None
    messages: list[Message]
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ChoiceAuto | ChoiceAny | ChoiceTool | ChoiceNone | None = None
    thinking: ThinkingEnabled | ThinkingDisabled | ThinkingAdaptive | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None  # no effect


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None  # no effect
    service_tier: Literal["auto", "standard_only"] | None = None  # no effect


# --- what is answered


class Usage(msgspec.Struct, kw_only=True):
    """`input_tokens` are those that were not in the prefix cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0


class Answer(msgspec.Struct, kw_only=True):
    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[Text | Thinking | ToolUse]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage


class Count(msgspec.Struct):
    input_tokens: int


# --- events of a stream


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    text: str


class ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag_field="type", tag="signature_delta"):
    signature: str


class JsonDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    partial_json: str


Delta = TextDelta | ThinkingDelta | SignatureDelta | JsonDelta


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    message: Answer


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


class BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: Text | Thinking | ToolUse


class BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    index: int
    delta: Delta


class BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    index: int


class Stop(msgspec.Struct):
    stop_reason: str
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    delta: Stop
    usage: Usage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    pass


Event = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop


class Problem(msgspec.Struct):
    type: str
    message: str


class Error(msgspec.Struct, tag_field="type", tag="error"):
    error: Problem
    request_id: str
