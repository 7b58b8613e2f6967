"""The offline front end, around the oracle model."""

import json
import subprocess
import sys

import pytest

import tenon
from tenon import LLM, SamplingParams, StructuredOutputs
from tenon.engine.oracle import answer_logits
from tenon.errors import ConfigError, InvalidRequest

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm():
    return LLM("anything", load_format="oracle", max_num_seqs=4)


def greedy(tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(answer_logits(tokens)[-1].argmax()))
    return tokens[-count:]


def test_text_in_text_out(llm, capsys):
    (output,) = llm.generate("hello", GREEDY)
    assert output.prompt == "hello"
    assert output.prompt_token_ids == [256, *b"hello"]
    assert output.finished
    choice = output.outputs[0]
    assert choice.token_ids == greedy(output.prompt_token_ids, 8)
    assert choice.text == llm.get_tokenizer().decode(choice.token_ids)
    assert choice.finish_reason == "length"
    assert "1/1" in capsys.readouterr().err


def test_outputs_come_in_the_order_of_the_prompts(llm, capsys):
    prompts = [f"prompt {i}" for i in range(20)]
    params = [SamplingParams(temperature=0.0, max_tokens=1 + i % 7, ignore_eos=True) for i in range(20)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [output.prompt for output in outputs] == prompts
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1 + i % 7 for i in range(20)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "prompt", [[5, 6, 7], {"prompt_token_ids": [5, 6, 7]}, [{"prompt_token_ids": [5, 6, 7]}]]
)
def test_prompts_as_token_ids(llm, prompt):
    (output,) = llm.generate(prompt, GREEDY, use_tqdm=False)
    assert output.prompt is None
    assert output.outputs[0].token_ids == greedy([5, 6, 7], 8)


def test_n_choices_and_reported_seed(llm):
    params = SamplingParams(n=3, max_tokens=12, ignore_eos=True)
    (output,) = llm.generate("x", params, use_tqdm=False)
    assert [choice.index for choice in output.outputs] == [0, 1, 2]
    assert len({tuple(choice.token_ids) for choice in output.outputs}) == 3
    again = SamplingParams(n=3, max_tokens=12, ignore_eos=True, seed=output.seed)
    (repeated,) = llm.generate("x", again, use_tqdm=False)
    assert repeated.outputs == output.outputs
    (other,) = llm.generate("x", params, use_tqdm=False)
    assert other.seed != output.seed


def test_stop_strings_cut_the_text_and_end_the_request(llm):
    whole = llm.generate("stop here", SamplingParams(temperature=0.0, max_tokens=64, ignore_eos=True), False)[
        0
    ]
    text = whole.outputs[0].text
    stop = next(text[i : i + 2] for i in range(5, 60) if text[i : i + 2].isascii())
    params = SamplingParams(temperature=0.0, max_tokens=64, ignore_eos=True, stop=[stop, "never there"])
    (output,) = llm.generate("stop here", params, use_tqdm=False)
    choice = output.outputs[0]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    assert choice.text == text[: text.index(stop)]
    assert choice.token_ids == whole.outputs[0].token_ids[: len(choice.token_ids)]
    assert not llm._client.has_work


def test_logprobs_name_the_chosen_token_first(llm):
    params = SamplingParams(temperature=0.0, max_tokens=4, logprobs=2, prompt_logprobs=0, ignore_eos=True)
    (output,) = llm.generate("abc", params, use_tqdm=False)
    choice = output.outputs[0]
    assert len(choice.logprobs) == 4
    for token, entry in zip(choice.token_ids, choice.logprobs, strict=True):
        assert next(iter(entry)) == token
        assert len(entry) == 2
        assert entry[token].rank == 1
        assert entry[token].decoded_token == llm.get_tokenizer().token_text(token)
    assert choice.cumulative_logprob == pytest.approx(
        sum(e[t].logprob for t, e in zip(choice.token_ids, choice.logprobs, strict=True))
    )
    assert output.prompt_logprobs[0] is None
    assert [list(entry) for entry in output.prompt_logprobs[1:]] == [[t] for t in b"abc"]


def test_cached_tokens_are_reported(llm):
    prompt = "a prompt of more than two blocks of thirty-two bytes, whatever it says"
    llm.generate(prompt, GREEDY, use_tqdm=False)
    (output,) = llm.generate(prompt, GREEDY, use_tqdm=False)
    assert output.num_cached_tokens == 64


def test_chat_goes_through_the_template(llm):
    messages = [{"role": "user", "content": "hi"}]
    (output,) = llm.chat(messages, GREEDY, use_tqdm=False)
    assert output.prompt_token_ids == [258, *b"user\nhi", 259, 258, *b"assistant\n"]
    outputs = llm.chat([messages, messages], GREEDY, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [output.outputs[0].token_ids] * 2


def test_one_wrong_prompt_is_refused_before_anything_runs(llm):
    steps = llm._client.engine.num_steps
    with pytest.raises(InvalidRequest, match="empty"):
        llm.generate(["fine", []], GREEDY, use_tqdm=False)
    with pytest.raises(InvalidRequest, match="between 0 and 259"):
        llm.generate([{"prompt_token_ids": [260]}], GREEDY, use_tqdm=False)
    with pytest.raises(InvalidRequest, match="entries for 2"):
        llm.generate(["a", "b"], [GREEDY], use_tqdm=False)
    assert not llm._frontend.generations
    assert llm._client.engine.num_steps <= steps + 2
    assert llm.generate([], GREEDY, use_tqdm=False) == []


@pytest.mark.parametrize(
    ("arguments", "param", "match"),
    [
        (("a", {"temperature": 0}), "sampling_params", "sampling_params must be SamplingParams, .* not dict"),
        ((["a"], [GREEDY, 5]), "sampling_params", "sampling_params must be"),
        ((None,), "prompts", "prompts must be text, token ids, or a list of them, not None"),
        ((["ok", [50], 7],), "prompt", r"prompts\[2\]: a prompt must be text, .* not 7"),
        ((["ok", None],), "prompt", r"prompts\[1\]: a prompt must be text, .* not None"),
        ((["ok", [504]],), "prompt", r"prompts\[1\]: token ids of the prompt must be between 0 and 259"),
        (([[1] * 5000],), "prompt", "shorten it to leave room"),
    ],
)
def test_wrong_types_are_named(llm, arguments, param, match):
    with pytest.raises(InvalidRequest, match=match) as error:
        llm.generate(*arguments, use_tqdm=False)
    assert error.value.param == param


def test_an_interrupt_leaves_an_empty_engine(llm, monkeypatch):
    step = llm._client.step
    steps = iter(range(100))

    def interrupted():
        if next(steps) == 5:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm._client, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["a", "b"], SamplingParams(max_tokens=1000, ignore_eos=True), use_tqdm=False)
    assert not llm._client.has_work
    llm._client.engine.check_integrity()


def test_a_request_that_fails_does_not_take_the_others_along(llm):
    def fail(batch):
        if 77 in batch.token_ids_T:
            raise ValueError("bad luck")

    llm._client.engine.runner.model.fail = fail
    try:
        good, bad = llm.generate(["good", [77]], GREEDY, use_tqdm=False)
    finally:
        llm._client.engine.runner.model.fail = None
    assert bad.outputs[0].finish_reason == "error"
    assert good.outputs[0].token_ids == greedy(good.prompt_token_ids, 8)


def test_unknown_engine_arguments_are_named():
    with pytest.raises(ConfigError, match="gpu_memory_utilisation"):
        LLM("x", load_format="oracle", gpu_memory_utilisation=0.5)


def test_importing_tenon_imports_nothing_else():
    code = (
        "import sys, tenon; print([m for m in sys.modules if m.startswith(('tenon.', 'numpy', 'msgspec'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert "LLM" in dir(tenon)
    with pytest.raises(AttributeError, match="nothing"):
        tenon.nothing  # noqa: B018


def test_structured_outputs(llm):
    schema = {"type": "object", "properties": {"a": {"enum": [1, "x"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    own = SamplingParams(
        structured_outputs=StructuredOutputs(json=schema, disable_any_whitespace=True), max_tokens=30, n=3
    )
    for output in llm.generate(["one", "two"], own, use_tqdm=False):
        for choice in output.outputs:
            assert choice.finish_reason == "stop"
            assert json.loads(choice.text)["a"] in (1, "x")
    wrong = SamplingParams(structured_outputs=StructuredOutputs(regex="(["))
    with pytest.raises(InvalidRequest, match="regex"):
        llm.generate("one", wrong, use_tqdm=False)
    budget = SamplingParams(thinking_token_budget=5)
    with pytest.raises(InvalidRequest, match="chat"):
        llm.generate("one", budget, use_tqdm=False)
    assert llm.generate("one", GREEDY, use_tqdm=False)[0].finished


THINKING = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if false %}<tool_call></tool_call> arguments <think></think>{% endif %}<think>"
)


def test_chat_knows_how_the_model_thinks(llm):
    """Nothing is held to the grammar before the thinking is closed, here by its budget."""
    own = SamplingParams(
        structured_outputs=StructuredOutputs(choice=["red", "blue"]), thinking_token_budget=4, max_tokens=60
    )
    conversation = [{"role": "user", "content": "hi"}]
    for output in llm.chat([conversation] * 3, own, False, chat_template=THINKING):
        thought, closed, answer = output.outputs[0].text.partition("</think>")
        assert closed
        assert thought
        assert answer.strip() in ("red", "blue")
    plain = llm.chat(conversation, SamplingParams(structured_outputs=own.structured_outputs), False)
    assert plain[0].outputs[0].text in ("red", "blue")
    with pytest.raises(InvalidRequest, match="thinking"):
        llm.chat(conversation, SamplingParams(thinking_token_budget=4), False)
