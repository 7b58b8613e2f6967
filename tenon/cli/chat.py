"""`tenon chat`: a conversation in the terminal, with a model in this process or on a server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, ClassVar, Protocol

import rich_click as click
from click import get_current_context

from tenon.cli.options import SecretText, engine_options, given_engine_options, key_or_environment
from tenon.config import EngineArgs
from tenon.core.sampling import SamplingParams
from tenon.errors import ConfigError, EngineDead, InvalidRequest, TenonError
from tenon.util.secret import Secret

HELP = """\
  /reset  forget the conversation
  /help   this text
  /exit   leave (or Ctrl-D)
Ctrl-C stops an answer."""

_FULL = "context_length_exceeded"  # code of the error


class ConversationFull(TenonError):
    """The next message does not fit into the model's context any more."""

    def __init__(self) -> None:
        super().__init__("the conversation is full; /reset starts a new one")


CONTENT, REASONING, CALL = "content", "reasoning", "call"
Piece = tuple[str, str]  # what it is a piece of, and its text


class Model(Protocol):
    """Something that answers a conversation, in pieces: of content, of reasoning, of a tool call.

    `cut` is what ended the last answer early ("max_tokens", "the conversation is full"); None if nothing did.
    `answer` raises ConversationFull, and TenonError for anything else that goes wrong.
    """

    name: str
    cut: str | None

    def answer(self, messages: list[dict[str, str]]) -> AsyncGenerator[Piece, None]: ...


class LocalModel:
    """A model in this process."""

    def __init__(self, engine: Any, params: SamplingParams) -> None:
        self.name = engine.model_name
        self.cut: str | None = None
        self._engine = engine
        self._params = params

    async def answer(self, messages: list[dict[str, str]]) -> AsyncGenerator[Piece, None]:
        from tenon.cli.prompt import chat_ids

        shown = 0
        self.cut = None
        prompt = chat_ids(self._engine, messages)
        try:
            started = self._engine.generate(prompt, self._params)
        except InvalidRequest as error:
            if error.code == _FULL:
                raise ConversationFull() from None
            raise
        async with started as stream:
            async for output in stream:
                choice = output.outputs[0]
                yield CONTENT, choice.text[shown:]
                shown = len(choice.text)
                if choice.finish_reason == "length":
                    self.cut = _cut(len(choice.token_ids), self._params)


class RemoteModel:
    """A model on a server with an OpenAI-compatible API."""

    def __init__(self, url: str, name: str, api_key: Secret | None, params: SamplingParams) -> None:
        from tenon.util.http import Connection, Target

        self.name = name
        self.cut: str | None = None
        self._connection = Connection(Target.parse(url), api_key)
        self._params = params

    async def answer(self, messages: list[dict[str, str]]) -> AsyncGenerator[Piece, None]:
        import msgspec

        from tenon.util.http import WANTS_KEY, HttpError, error_message, events

        self.cut = None
        encoded = msgspec.json.encode(self._body(messages))
        by_length = False
        try:
            parts = self._connection.stream("POST", "/v1/chat/completions", encoded)
            async with aclosing(events(parts)) as stream:
                async for data in stream:
                    chunk = msgspec.json.decode(data)
                    if error := chunk.get("error"):
                        raise EngineDead(error_message(error))
                    for choice in chunk["choices"][:1]:
                        by_length = by_length or choice.get("finish_reason") == "length"
                        for piece in _pieces(choice["delta"]):
                            yield piece
                    if by_length and (usage := chunk.get("usage")):
                        self.cut = _cut(usage["completion_tokens"], self._params)
        except OSError as error:
            raise EngineDead("the server stopped answering") from error
        except HttpError as error:
            if error.code == _FULL:
                raise ConversationFull() from None
            raise EngineDead(WANTS_KEY if error.status == 401 else error.message) from None

    def _body(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        params = self._params
        body: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
            "seed": params.seed,
        }
        return {name: value for name, value in body.items() if value is not None}


def _pieces(delta: dict[str, Any]) -> Iterator[Piece]:
    """Of a streamed chunk. A tool call is written as a call in a programming language, one a line."""
    yield REASONING, delta.get("reasoning") or delta.get("reasoning_content") or ""
    yield CONTENT, delta.get("content") or ""
    for call in delta.get("tool_calls") or []:
        function = call.get("function") or {}
        if function.get("name"):
            yield CALL, f"\n{function['name']} "
        yield CALL, function.get("arguments") or ""


class Screen:
    """Prints an answer, each kind of piece on lines of its own.

    At a terminal, reasoning is dimmed and tool calls are underlined.
    """

    _STYLES: ClassVar = {CONTENT: "", REASONING: "\x1b[2m", CALL: "\x1b[4m"}

    def __init__(self) -> None:
        self._styled = sys.stdout.isatty()
        self._kind = ""  # of what has been printed last

    def show(self, piece: Piece) -> None:
        kind, text = piece
        if kind == CALL and self._kind != CALL:
            text = text.lstrip("\n")
        if not text:
            return
        if self._kind not in ("", kind):
            print()
        self._kind = kind
        style = self._STYLES[kind] if self._styled else ""
        print(f"{style}{text}\x1b[0m" if style else text, end="", flush=True)


def _cut(num_tokens: int, params: SamplingParams) -> str:
    """What ended an answer of this length with the finish reason "length"."""
    longest = params.max_tokens
    return "max_tokens" if longest is not None and num_tokens >= longest else "the conversation is full"


class Conversation:
    """The turns so far, and the loop that adds to them."""

    def __init__(self, model: Model, runner: asyncio.Runner, system: str | None) -> None:
        self._model = model
        self._runner = runner
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages = list(self._system)
        self._at_terminal = sys.stdin.isatty()
        self._prompt = "> " if self._at_terminal else ""

    def hold(self) -> None:
        """Read, answer, repeat, until /exit or the end of input.

        Raises ConversationFull when there is nobody at a terminal to say /reset.
        """
        while True:
            try:
                line = input(self._prompt).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                print("\n(/exit or Ctrl-D leaves)")
                continue
            if line == "/exit":
                return
            if line == "/help":
                print(HELP)
            elif line == "/reset":
                self.messages = list(self._system)
                print("(the conversation starts anew)")
            elif line.startswith("/"):
                print(f"there is no {line.split()[0]}; /help lists the commands")
            elif line:
                self.ask(line)

    def ask(self, text: str) -> None:
        """Print the answer to one message as it comes; Ctrl-C keeps what has come so far."""
        self.messages.append({"role": "user", "content": text})
        answer: list[str] = []
        try:
            self._runner.run(self._stream(answer))
            if self._model.cut:
                print(f" (cut: {self._model.cut})", end="")
        except KeyboardInterrupt:
            print(" (stopped)", end="")
        except ConversationFull as error:
            self.messages.pop()
            if not self._at_terminal:
                raise
            print(f"error: {error}", file=sys.stderr)
            return
        except TenonError as error:
            print(f"error: {error}", file=sys.stderr)
        print()
        if answer:
            self.messages.append({"role": "assistant", "content": "".join(answer)})
        else:
            self.messages.pop()

    async def _stream(self, answer: list[str]) -> None:
        screen = Screen()
        async with aclosing(self._model.answer(self.messages)) as pieces:
            async for piece in pieces:
                screen.show(piece)
                if piece[0] == CONTENT and piece[1]:
                    answer.append(piece[1])


@click.command("chat")
@click.option("--url", help="Talk to this server instead of loading a model here.")
@click.option("--api-key", type=SecretText(), help="Key of that server (default: TENON_API_KEY).")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option(
    "--temperature", type=float, default=0.7, show_default=True, help="0 takes the likeliest token."
)
@click.option(
    "--top-p", type=float, default=0.95, show_default=True, help="Smallest set of this probability."
)
@click.option("--max-tokens", type=int, default=1024, show_default=True, help="Longest answer, in tokens.")
@click.option("--sampling-seed", type=int, metavar="N", help="Seed, for the same answers again.")
@engine_options()
def command(
    engine: EngineArgs,
    url: str | None,
    api_key: Secret | None,
    system: str | None,
    temperature: float,
    top_p: float,
    max_tokens: int,
    sampling_seed: int | None,
) -> None:
    """Hold a conversation in the terminal.

    `tenon chat` loads the default model here; `tenon chat --url http://127.0.0.1:8000` talks to a server.
    Lines can also come from a pipe.
    """
    if url and (given := given_engine_options(get_current_context())):
        raise ConfigError(f"with --url the server has the model: leave out {', '.join(given)}")
    params = SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=sampling_seed)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            model = runner.run(_model(stack, engine, url, key_or_environment(api_key), params))
            if sys.stdin.isatty():
                import readline  # noqa: F401  line editing and history for input()

                print(f"{model.name}: type a message; /help lists the commands")
            Conversation(model, runner, system).hold()
        finally:
            runner.run(stack.aclose())


async def _model(
    stack: AsyncExitStack, args: EngineArgs, url: str | None, api_key: Secret | None, params: SamplingParams
) -> Model:
    if url:
        from tenon.util.http import Target, first_model

        name = await first_model(Target.parse(url), api_key)
        return RemoteModel(url, name, api_key, params)
    from tenon.cli.engine import started

    return LocalModel(await stack.enter_async_context(started(args)), params)
