"""Chat messages to the text a model was trained on, by the Jinja template that comes with the model.

Templates are code from whoever made the model, so they run in Jinja's immutable sandbox. Their environment
is the one that models are published for: trimmed blocks, loop controls, `raise_exception`, `strftime_now`, a
`tojson` that leaves text as it is, and `{% generation %}` blocks, which only training needs.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import msgspec

from tenon.errors import ConfigError, InvalidRequest, ModelFileError
from tenon.formats import small
from tenon.text.conversation import Conversation
from tenon.text.from_hf import MAX_TEMPLATE_BYTES
from tenon.text.tokenizer import Tokenizer
from tenon.text.untrusted import marked

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Rendered(msgspec.Struct, frozen=True):
    """A prompt as text. `mark` stands where it is cut before it is encoded; "": nowhere."""

    marked: str
    mark: str = ""

    @property
    def text(self) -> str:
        return self.marked.replace(self.mark, "") if self.mark else self.marked

    def encode(self, tokenizer: Tokenizer, add_special_tokens: bool = False) -> list[int]:
        """Token ids; the template writes BOS itself."""
        return tokenizer.encode_marked(self.marked, self.mark, add_special_tokens)


def render(conversation: Conversation, tokenizer: Tokenizer) -> Rendered:
    """The prompt for a conversation.

    Raises InvalidRequest, naming `messages`, for messages that are malformed or that the template refuses.
    """
    tools = list(conversation.tools) if conversation.tools else None
    template = conversation.template or choose_template(tokenizer, with_tools=bool(tools))
    words = {"tools": tools, **conversation.variables, "messages": normalise(conversation.messages)}

    def fill(values: dict[str, Any]) -> str:
        ends = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
        opens = conversation.add_generation_prompt and not conversation.continues
        text = _fill(template, {**ends, **values, "add_generation_prompt": opens})
        return _up_to_end(text, values["messages"][-1]["content"]) if conversation.continues else text

    if not conversation.plain:
        return Rendered(fill(words))
    return Rendered(*marked(words, tokenizer.controls, fill))


def _fill(source: str, values: dict[str, Any]) -> str:
    try:
        return _compiled(source).render(values)
    except _Refused as error:
        raise InvalidRequest(f"messages: the chat template refuses them: {error}", "messages") from error
    except jinja2.TemplateSyntaxError as error:
        raise InvalidRequest(
            f"messages: the model's chat template is malformed, line {error.lineno}: {error.message}; "
            "give another one with --chat-template",
            "messages",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever the template's code runs into with these messages
        raise InvalidRequest(
            f"messages: the chat template fails on them: {type(error).__name__}: {error}", "messages"
        ) from error


def _up_to_end(rendered: str, content: str) -> str:
    """`rendered` up to the end of the last message's text, so that the model goes on with it."""
    content = content.strip()
    at = rendered.rfind(content)
    if not content or at < 0:
        raise InvalidRequest(
            "continue_final_message needs a last message with text, shown as it is by the chat template",
            "continue_final_message",
        )
    return rendered[: at + len(content)]


def choose_template(tokenizer: Tokenizer, *, with_tools: bool = False) -> str:
    """The tokenizer's template for the case at hand. Raises InvalidRequest when it has none."""
    template = tokenizer.chat_templates.get("tool_use") if with_tools else None
    template = template or tokenizer.chat_template
    if template is None:
        raise InvalidRequest(
            "messages: this model has no chat template; give one with --chat-template, or use completions",
            "messages",
        )
    return template


def load_template(value: str) -> str:
    """A template as the user gives it: its text, or the path of a file. It is not compiled: that runs some of
    it, and may take any time (`check_template`). Raises ConfigError."""
    if "{" in value or "\n" in value:
        return value
    try:
        source = small.read_text(Path(value).expanduser(), MAX_TEMPLATE_BYTES)
    except (ModelFileError, RuntimeError) as error:  # RuntimeError: ~ of nobody
        raise ConfigError(f"chat_template {value!r} is neither a template nor a file: {error}") from None
    if source is None:
        raise ConfigError(f"chat_template {value!r} is neither a template nor a file: there is none")
    return source


def check_template(source: str) -> None:
    """Compile a template. Raises ConfigError."""
    try:
        _compiled(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"chat_template is malformed, line {error.lineno}: {error.message}") from error
    except Exception as error:  # what is constant is computed here, and may fail in any way
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"chat_template cannot be compiled: {why}") from None


def normalise(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as templates expect them: content as one string, arguments of tool calls as objects.

    Raises InvalidRequest naming the message that is wrong.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise InvalidRequest("messages must be a list of at least one message", "messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"{where} must be an object", where)
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRequest(f"{where}.role must be one of {', '.join(ROLES)}, not {role!r}", f"{where}.role")
    result = {key: value for key, value in message.items() if value is not None}
    result["content"] = _content(message.get("content"), f"{where}.content", bool(message.get("tool_calls")))
    if message.get("tool_calls"):
        result["tool_calls"] = _tool_calls(message["tool_calls"], f"{where}.tool_calls")
    return result


def _content(content: Any, where: str, may_lack: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and may_lack:
        return ""
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{where} must be a string or a list of parts", where)
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "refusal"):
        raise InvalidRequest(
            f"{where}.type must be 'text': this model reads only text, not {kind!r}", f"{where}.type"
        )
    if not isinstance(text := part.get(kind), str):
        raise InvalidRequest(f"{where}.{kind} must be a string", f"{where}.{kind}")
    return text


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Clients send the arguments of calls as JSON text; templates print objects."""
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidRequest(f"{where} must be a list", where)
    result = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise InvalidRequest(f"{where}[{index}].function must be an object", f"{where}[{index}].function")
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError) as error:
                name = f"{where}[{index}].function.arguments"
                raise InvalidRequest(f"{name} is not JSON: {error}", name) from error
        result.append({**call, "function": {**function, "arguments": arguments}})
    return result


class _Refused(jinja2.TemplateError):
    """What `raise_exception` in a template raises."""


class _GenerationBlocks(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks what to train on; here it is its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes for HTML; a prompt is not HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@functools.cache
def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)
