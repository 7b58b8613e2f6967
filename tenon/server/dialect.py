"""What a model's output means: its output format, and a turn's tools and thinking in terms of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tenon.parse import detect, formats
from tenon.parse.format import Format
from tenon.parse.machine import Parser
from tenon.server.engine import Engine, Tokenizer
from tenon.server.errors import ApiError, bad_request, not_supported
from tenon.server.turn import Turn

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Variables of chat templates that a request may set; the operator can allow more.
TEMPLATE_VARIABLES = frozenset(
    {"enable_thinking", "thinking", "thinking_budget", "thinking_mode", "reasoning_effort", "documents"}
    | {"clear_thinking", "preserve_thinking", "add_vision_id", "date_string", "model_identity", "language"}
)
# Variables that switch thinking on and off, by the names that templates use.
_SWITCHES = ("enable_thinking", "thinking")
_RESERVED = frozenset(
    {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception"}
    | {"strftime_now", "continue_final_message", "template", "tokenizer"}
)


class Dialect(msgspec.Struct, frozen=True):
    """The output format of one engine's model. `table` also knows the tokens that end an output."""

    name: str
    table: Format
    templates: str  # every chat template of the model
    special: dict[str, int]  # ids of special tokens by their text
    keeps_special: bool  # special tokens are markers of the format: their text must not be dropped

    @classmethod
    def of(cls, engine: Engine, name: str) -> Dialect:
        """Raises ConfigError if `name` is no output format."""
        tokenizer = engine.tokenizer
        templates = "\n".join(tokenizer.chat_templates.values())
        name = detect.resolve(name, templates)
        table = formats.load(name)
        special = {
            text: token for token in sorted(tokenizer.special_ids) if (text := tokenizer.token_text(token))
        }
        marks = "\n".join(table.special())  # a marker may be one token among others
        keeps_special = any(text in marks for text in special)
        if keeps_special:
            stops = (*table.stops, *_texts(tokenizer, tokenizer.eos_token_ids))
            ends = table.channels.ends if table.channels else ()
            table = msgspec.structs.replace(
                table, stops=tuple(dict.fromkeys(s for s in stops if s not in ends))
            )
        return cls(name, table, templates, special, keeps_special)

    def tools(self, turn: Turn) -> list[dict[str, Any]] | None:
        """The tools that the model may call, None if it may call none. Raises ApiError."""
        for index, tool in enumerate(turn.tools):
            _check_tool(tool, f"tools[{index}]")
        _check_names(turn.tools)
        if not turn.tools or turn.tool_choice == "none":
            return None
        if not (self.table.calls or self.table.channels):
            raise ApiError(
                400,
                f"tools is not supported: the output format of this model, {self.name}, has no tool calls; "
                "the server can be started with another one (--output-format)",
                param="tools",
                code="not_supported",
            )
        return turn.tools

    def variables(self, turn: Turn, allowed: frozenset[str]) -> dict[str, Any]:
        """What the turn sets in the chat template. Raises ApiError."""
        for name in turn.template_variables:
            if name not in allowed or name in _RESERVED:
                raise ApiError(
                    400,
                    f"template_variables: {name!r} may not be set by requests, but "
                    f"{', '.join(sorted(allowed))} may; the server's --template-variable allows more",
                    param="template_variables",
                    code="not_supported",
                )
        return {**self._thinking(turn), **turn.template_variables}

    def _thinking(self, turn: Turn) -> dict[str, Any]:
        """The effort for templates that know it, and as a switch for those that know one."""
        effort, thinks = turn.reasoning_effort, turn.thinking
        if effort is not None:
            if effort not in EFFORTS:
                raise bad_request(f"reasoning_effort must be one of {', '.join(EFFORTS)}", "reasoning_effort")
            thinks = effort != "none"
        if thinks is None:
            return {}
        switches = {name: thinks for name in _SWITCHES if name in self.templates}
        if effort is None:
            if thinks and not switches and not self.thinks_by_itself:
                raise not_supported("thinking")
            return switches
        if thinks and not switches and "reasoning_effort" not in self.templates:
            raise not_supported("reasoning_effort")
        return {"reasoning_effort": effort, **switches}

    @property
    def thinks_by_itself(self) -> bool:
        """The model thinks without being told to."""
        return self.table.thinks_first or self.table.channels is not None

    def parser(self, tools: Sequence[Mapping[str, Any]] | None, prompt_tail: str, prefill: str) -> Parser:
        return Parser(self.table, tools, prompt_tail, prefill=prefill)


def _texts(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    return [text for token in tokens if (text := tokenizer.token_text(token))]


def _check_names(tools: Sequence[Mapping[str, Any]]) -> None:
    """Nobody could tell whose a call of a shared name is. Raises ApiError."""
    seen: dict[str, int] = {}
    for index, tool in enumerate(tools):
        name = tool["function"]["name"]
        if (first := seen.setdefault(name, index)) != index:
            where = f"tools[{index}].function.name"
            raise bad_request(f"{where} {name!r} is the name of tools[{first}] already", where)


def _check_tool(tool: Any, where: str) -> None:
    """A tool as OpenAI's API has it. Raises ApiError naming what is wrong."""
    function = tool.get("function")
    if tool.get("type", "function") != "function":
        raise bad_request(f"{where}.type must be 'function'", f"{where}.type")
    if not isinstance(function, dict):
        raise bad_request(f"{where}.function must be an object", f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name or len(name) > 256 or any(c.isspace() for c in name):
        raise bad_request(f"{where}.function.name must be a name", f"{where}.function.name")
    for field, kinds in (("description", str), ("parameters", dict), ("strict", bool)):
        if not isinstance(function.get(field), kinds | None):
            raise bad_request(f"{where}.function.{field} is of the wrong type", f"{where}.function.{field}")
