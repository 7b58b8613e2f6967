"""Bodies of /v1/responses, OpenAI's Responses API: what is asked, what is answered, and the events of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tenon.server.schema.chat import TokenLogprob
from tenon.server.schema.sampling import Priority

# --- items of the conversation, asked


class Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`id` and `status` come with items of former answers. Fields of type None are for tools that tenon has
    not; clients send them back as null."""

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    namespace: None = None
    caller: None = None


class InputText(msgspec.Struct, kw_only=True, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    text: str


class OutputText(msgspec.Struct, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] | None = None


class Refusal(msgspec.Struct, kw_only=True, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    refusal: str


class InputMessage(Asked, kw_only=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | OutputText | Refusal]
    type: Literal["message"] = "message"


class InputCall(Asked, kw_only=True):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CallOutput(Asked, kw_only=True):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    name: None = None


class SummaryText(msgspec.Struct, kw_only=True, tag_field="type", tag="summary_text"):
    text: str


class ReasoningText(msgspec.Struct, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str


class InputReasoning(Asked, kw_only=True):
    type: Literal["reasoning"]
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: None = None


INPUT_ITEMS: dict[str, type[Asked]] = {
    "message": InputMessage,
    "function_call": InputCall,
    "function_call_output": CallOutput,
    "reasoning": InputReasoning,
}


# --- what is asked


class Tool(msgspec.Struct, kw_only=True, tag_field="type", tag="function", forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class PlainFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonObjectFormat(msgspec.Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class JsonSchemaFormat(
    msgspec.Struct, kw_only=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True
):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: PlainFormat | JsonObjectFormat | JsonSchemaFormat = PlainFormat()
    verbosity: Literal["low", "medium", "high"] | None = None  # no effect


class Reasoning(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None  # accepted; tenon pads nothing


LOGPROBS = "message.output_text.logprobs"
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",  # no effect: reasoning is in the answer as it is
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponsesRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[Include] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Beyond OpenAI's, as in chat completions.
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    priority: Priority | None = None
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Known, and without any effect here.
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    max_tool_calls: int | None = None  # of tools that OpenAI runs itself


class RetrieveQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    stream: bool = False
    starting_after: int = -1
    include_obfuscation: bool = False
    include: str = msgspec.field(name="include[]", default="")  # the answer has what was asked for at first


class ItemsQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str = ""
    include: str = msgspec.field(name="include[]", default="")


# --- what is answered


class Message(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: str
    content: list[OutputText]
    role: str = "assistant"


class FunctionCall(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: str


class ReasoningItem(msgspec.Struct, kw_only=True, tag_field="type", tag="reasoning"):
    id: str
    content: list[ReasoningText]
    status: str
    summary: list[SummaryText] = []


Item = Message | FunctionCall | ReasoningItem


class InputDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct, kw_only=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Problem(msgspec.Struct):
    code: str
    message: str


class Incomplete(msgspec.Struct):
    reason: str


class Response(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: str  # queued, in_progress, completed, incomplete, failed or cancelled
    error: Problem | None = None
    incomplete_details: Incomplete | None = None
    model: str
    output: list[Item] = []
    usage: Usage | None = None
    instructions: str | None
    previous_response_id: str | None
    tools: list[Tool]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: TextConfig
    reasoning: Reasoning
    truncation: str
    store: bool
    background: bool
    metadata: dict[str, str]
    user: str | None
    service_tier: str = "default"


class Deleted(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response"
    deleted: bool = True


class Items(msgspec.Struct, kw_only=True):
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


# --- events


class Event(msgspec.Struct, kw_only=True, tag_field="type"):
    sequence_number: int = -1


class About(Event, kw_only=True):
    """An event about the whole response, as it stands."""

    response: Response


class Created(About, kw_only=True, tag="response.created"):
    pass


class Queued(About, kw_only=True, tag="response.queued"):
    pass


class InProgress(About, kw_only=True, tag="response.in_progress"):
    pass


class Completed(About, kw_only=True, tag="response.completed"):
    pass


class IncompleteEnd(About, kw_only=True, tag="response.incomplete"):
    pass


class Failed(About, kw_only=True, tag="response.failed"):
    pass


LAST = (Completed, IncompleteEnd, Failed)


class ItemAdded(Event, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: Item


class ItemDone(Event, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: Item


class Inside(Event, kw_only=True):
    """An event inside of an item."""

    item_id: str
    output_index: int


class PartAdded(Inside, kw_only=True, tag="response.content_part.added"):
    content_index: int = 0
    part: OutputText | ReasoningText


class PartDone(Inside, kw_only=True, tag="response.content_part.done"):
    content_index: int = 0
    part: OutputText | ReasoningText


class TextDelta(Inside, kw_only=True, tag="response.output_text.delta"):
    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprob]


class TextDone(Inside, kw_only=True, tag="response.output_text.done"):
    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob]


class ReasoningDelta(Inside, kw_only=True, tag="response.reasoning_text.delta"):
    content_index: int = 0
    delta: str


class ReasoningDone(Inside, kw_only=True, tag="response.reasoning_text.done"):
    content_index: int = 0
    text: str


class ArgumentsDelta(Inside, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(Inside, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


class Error(Event, kw_only=True, tag="error"):
    code: str | None
    message: str
    param: str | None


AnyEvent = (
    Created | Queued | InProgress | Completed | IncompleteEnd | Failed
    | ItemAdded | ItemDone | PartAdded | PartDone | TextDelta | TextDone
    | ReasoningDelta | ReasoningDone | ArgumentsDelta | ArgumentsDone | Error
)  # fmt: skip
