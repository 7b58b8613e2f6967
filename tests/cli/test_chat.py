import asyncio
import io
import re
import sys

import pytest

from tenon import cli
from tenon.cli.chat import Conversation
from tests.openai_server import FakeServer, running


def converse(monkeypatch, capsys, lines, *arguments):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    status = cli.run(["chat", *arguments])
    return status, *capsys.readouterr()


def test_a_server_is_sent_the_whole_conversation(monkeypatch, capsys):
    with running() as server:
        status, out, _ = converse(
            monkeypatch,
            capsys,
            ["Hello", "And then?", "/reset", "Again", "/help", "/nonsense", "/exit", "never"],
            *("--url", server.url, "--system", "Be brief.", "--max-tokens", "3", "--sampling-seed", "7"),
        )
    assert status == 0
    assert out.count("w0 w1 w2  (cut: max_tokens)") == 3
    assert "/reset  forget" in out
    assert "there is no /nonsense" in out
    turns = [[message["content"] for message in body["messages"]] for body in server.bodies]
    assert turns == [
        ["Be brief.", "Hello"],
        ["Be brief.", "Hello", "w0 w1 w2 ", "And then?"],
        ["Be brief.", "Again"],
    ]
    assert server.bodies[0]["seed"] == 7


@pytest.mark.parametrize("fault", ["status", "error", "cut"])
def test_a_server_that_fails_ends_the_answer_not_the_program(monkeypatch, capsys, fault):
    with running(FakeServer(fault=fault)) as server:
        lines = ["one", "two", "three"]
        status, out, err = converse(monkeypatch, capsys, lines, "--url", server.url, "--max-tokens", "4")
    assert status == 0
    assert "error: " in err
    assert out.count("w3") == 2
    assert len(server.bodies) == 3


def test_a_full_context_ends_a_pipe(monkeypatch, capsys):
    with running(FakeServer(fault="full")) as server:
        lines = ["one", "two", "three"]
        status, _, err = converse(monkeypatch, capsys, lines, "--url", server.url, "--max-tokens", "4")
    assert status == 2
    assert err == "error: the conversation is full; /reset starts a new one\n"
    assert len(server.bodies) == 2


def test_at_a_terminal_a_full_context_can_be_reset(monkeypatch, capsys):
    answers = iter(["one", "two", "/reset", "three", "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with running(FakeServer(fault="full")) as server:
        assert cli.run(["chat", "--url", server.url, "--max-tokens", "4"]) == 0
    assert "the conversation is full" in capsys.readouterr().err
    assert [message["content"] for message in server.bodies[-1]["messages"]] == ["three"]


def test_a_server_with_a_key_says_what_it_wants(monkeypatch, capsys):
    with running(FakeServer(api_key="k")) as server:
        status, _, err = converse(monkeypatch, capsys, ["one"], "--url", server.url)
    assert (status, err) == (2, "error: the server wants a key: --api-key or TENON_API_KEY\n")


DELTAS = [
    {"reasoning": "Hm"},
    {"reasoning": "."},
    {"content": "Let me "},
    {"content": "look."},
    {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"x": 1}'}}]},
    {
        "tool_calls": [
            {"index": 1, "id": "d", "type": "function", "function": {"name": "g", "arguments": "{}"}}
        ]
    },
]


@pytest.mark.parametrize("terminal", [False, True])
def test_reasoning_and_tool_calls_are_shown(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    with running(FakeServer(deltas=DELTAS)) as server:
        status, out, _ = converse(monkeypatch, capsys, ["Hello", "More"], "--url", server.url)
    assert status == 0
    plain = 'Hm.\nLet me look.\nf {"x": 1}\ng {}\n'
    assert re.sub(r"\x1b\[\dm", "", out) == plain * 2
    assert ("\x1b[2mHm\x1b[0m" in out) is terminal
    assert ("\x1b[4mf " in out) is terminal
    assert "\x1b[2mLet" not in out
    said = [message["content"] for message in server.bodies[1]["messages"]]
    assert said == ["Hello", "Let me look.", "More"]


class SlowModel:
    """Says two words, then is interrupted, as by Ctrl-C."""

    name = "slow"
    cut = None

    async def answer(self, messages):
        yield "content", "one "
        yield "content", "two"
        raise KeyboardInterrupt


def test_an_interrupt_stops_the_answer_and_keeps_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with asyncio.Runner() as runner:
        conversation = Conversation(SlowModel(), runner, None)
        conversation.ask("Count.")
    assert capsys.readouterr().out == "one two (stopped)\n"
    assert [message["content"] for message in conversation.messages] == ["Count.", "one two"]


def test_an_interrupt_at_the_prompt_does_not_leave(monkeypatch, capsys):
    answers = iter([KeyboardInterrupt(), "/exit"])

    def read(prompt):
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("builtins.input", read)
    with asyncio.Runner() as runner:
        Conversation(SlowModel(), runner, None).hold()
    assert "/exit or Ctrl-D leaves" in capsys.readouterr().out
