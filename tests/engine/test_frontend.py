"""The front end: fan-out, text, stop strings, errors, with engine outputs made up here."""

import msgspec
import pytest

from tenon.config import EngineArgs
from tenon.core.messages import EngineOutput, Outputs, Ready, TokenLogprob
from tenon.core.sampling import SamplingParams
from tenon.engine import oracle
from tenon.engine.frontend import Frontend
from tenon.errors import EngineDead, InvalidRequest, RequestFailed

READY = Ready(max_model_len=64, num_kv_blocks=8, block_size=32, vocab_size=260, load_seconds=0.0)


def make(tokenizer=True, **args) -> Frontend:
    config = EngineArgs(load_format="oracle", **args).resolve()
    return Frontend(oracle.tokenizer() if tokenizer else None, READY, config)


def outputs(*items: EngineOutput) -> Outputs:
    return Outputs(outputs=list(items))


def emit(child: str, text: str | bytes, finish_reason: str | None = None, **fields) -> EngineOutput:
    data = text.encode() if isinstance(text, str) else text
    return EngineOutput(request_id=child, new_token_ids=list(data), finish_reason=finish_reason, **fields)


def test_choices_share_everything_but_their_index():
    frontend = make(scheduling_policy="priority")
    generation, adds = frontend.add(
        "hi", SamplingParams(n=3), request_id="r", priority=2, background=True, cache_salt="s"
    )
    assert [add.request_id for add in adds] == ["r/0", "r/1", "r/2"]
    assert [add.choice for add in adds] == [0, 1, 2]
    assert {add.params.seed for add in adds} == {generation.seed}
    assert {(add.params.n, add.priority, add.background, add.cache_salt) for add in adds} == {
        (1, 2, True, "s")
    }


def test_a_priority_without_effect_is_refused():
    frontend = make()
    with pytest.raises(InvalidRequest, match="scheduling_policy") as caught:
        frontend.add("hi", SamplingParams(), priority=-1)
    assert caught.value.param == "priority"
    assert not frontend.generations
    frontend.add("hi", SamplingParams(), priority=0)


def test_seeds_are_drawn_from_the_engines_seed():
    seeds = [make(seed=7).add("x", SamplingParams())[0].seed for _ in range(2)]
    assert seeds[0] == seeds[1]
    assert make(seed=8).add("x", SamplingParams())[0].seed != seeds[0]
    assert make().add("x", SamplingParams())[0].seed != make().add("x", SamplingParams())[0].seed
    assert make().add("x", SamplingParams(seed=5))[0].seed == 5


def test_prompt_logprobs_are_asked_for_once():
    _, adds = make().add("hi", SamplingParams(n=2, prompt_logprobs=1))
    assert [add.params.prompt_logprobs for add in adds] == [1, None]


def test_text_grows_and_characters_stay_whole():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(), request_id="r")
    changes = []
    generation.on_change = lambda: changes.append(generation.snapshot())
    for byte in "né🙂".encode():
        frontend.apply(outputs(emit("r/0", bytes([byte]))))
    frontend.apply(outputs(emit("r/0", b"\xf0", "length")))
    assert [o.outputs[0].text for o in changes] == ["n", "n", "né", "né", "né", "né", "né🙂", "né🙂\ufffd"]
    assert [o.finished for o in changes] == [False] * 7 + [True]
    assert not frontend.generations


def test_snapshots_stay_what_they_were_and_end_as_lists():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(n=2, logprobs=0, max_tokens=99), request_id="r")
    taken = []
    for i, byte in enumerate(b"abcdefgh"):
        entry = [TokenLogprob(byte, -1.0, 1, [], [])]
        end = "length" if byte == ord("h") else None
        frontend.apply(outputs(emit("r/0", bytes([byte]), end, new_logprobs=entry)))
        taken.append(generation.snapshot().outputs[0])
        assert taken[i].token_ids == list(b"abcdefgh"[: i + 1])
    for i, choice in enumerate(taken):
        assert choice.text == "abcdefgh"[: i + 1]
        assert choice.token_ids == list(choice.text.encode())
        assert [list(entry) for entry in choice.logprobs] == [[byte] for byte in choice.token_ids]
        assert choice.cumulative_logprob == -1.0 * len(choice.token_ids)
    frontend.apply(outputs(emit("r/1", "x", "length", new_logprobs=entry)))
    for choice in generation.snapshot().outputs:
        assert type(choice.token_ids) is type(choice.logprobs) is list


def test_a_stop_string_ends_the_choice_and_aborts_the_engine_request():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(n=2, stop="END"), request_id="r")
    assert frontend.apply(outputs(emit("r/0", "one E"), emit("r/1", "two"))) == []
    assert generation.snapshot().outputs[0].text == "one "
    assert frontend.apply(outputs(emit("r/0", "ND more"))) == ["r/0"]
    assert frontend.apply(outputs(emit("r/0", "late", "length"), emit("r/1", "!", "length"))) == []
    first, second = generation.snapshot().outputs
    assert (first.text, first.finish_reason, first.stop_reason) == ("one ", "stop", "END")
    assert bytes(first.token_ids) == b"one END"
    assert (second.text, second.finish_reason) == ("two!", "length")


def test_a_stop_string_with_the_engines_last_token_needs_no_abort():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(stop="D"), request_id="r")
    assert frontend.apply(outputs(emit("r/0", "aD", "length"))) == []
    assert generation.snapshot().outputs[0].finish_reason == "stop"


def test_logprobs_follow_tokens_up_to_the_stop_string():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(stop="b", logprobs=1), request_id="r")
    entries = [TokenLogprob(token, -1.0, 2, [99], [-0.5]) for token in b"abc"]
    frontend.apply(outputs(emit("r/0", "abc", new_logprobs=entries)))
    choice = generation.snapshot().outputs[0]
    assert [list(entry) for entry in choice.logprobs] == [[97, 99], [98, 99]]
    assert choice.logprobs[0][99].rank == 1
    assert choice.logprobs[0][99].decoded_token == "c"
    assert choice.cumulative_logprob == -2.0


def test_without_a_tokenizer_ids_go_through():
    frontend = make(tokenizer=False)
    generation, _ = frontend.add([1, 2], SamplingParams(logprobs=0), request_id="r")
    frontend.apply(outputs(emit("r/0", b"\x05", "length", new_logprobs=[TokenLogprob(5, -1.0, 1, [], [])])))
    choice = generation.snapshot().outputs[0]
    assert (choice.text, choice.token_ids) == ("", [5])
    assert choice.logprobs[0][5].decoded_token is None
    for prompt, params in (("text", SamplingParams()), ([1], SamplingParams(stop="x"))):
        with pytest.raises(InvalidRequest, match="tokenizer"):
            frontend.add(prompt, params)


@pytest.mark.parametrize(
    ("prompt", "params", "param"),
    [
        ([], {}, "prompt"),
        ([1.5], {}, "prompt"),
        ([True], {}, "prompt"),
        ([260], {}, "prompt"),
        ([-1], {}, "prompt"),
        ([1] * 64, {}, "prompt"),
        ({"prompt": "x"}, {}, "prompt"),
        ([1], {"logit_bias": {260: 1.0}}, "logit_bias"),
        ([1], {"logprobs": 6}, "logprobs"),
        ([1], {"prompt_logprobs": 6}, "prompt_logprobs"),
    ],
)
def test_wrong_requests_name_their_field(prompt, params, param):
    frontend = make(max_logprobs=5)
    with pytest.raises(InvalidRequest) as caught:
        frontend.add(prompt, SamplingParams(**params))
    assert caught.value.param == param
    assert not frontend.generations


def test_parameters_changed_behind_our_back_are_checked_again():
    params = SamplingParams()
    params.temperature = float("nan")
    with pytest.raises(InvalidRequest, match="temperature"):
        make().add("x", params)


def test_an_engine_error_ends_the_whole_request():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(n=3), request_id="r")
    other, _ = frontend.add("hi", SamplingParams(), request_id="s")
    error = EngineOutput(request_id="r/1", finish_reason="error", error="no", error_kind="InvalidRequest")
    assert frontend.apply(outputs(error)) == ["r/0", "r/2"]
    assert isinstance(generation.error, InvalidRequest)
    assert generation.finished
    assert list(frontend.generations) == ["s"]
    frontend.apply(outputs(EngineOutput(request_id="s/0", finish_reason="error", error="internal")))
    assert isinstance(other.error, RequestFailed)


def test_text_that_cannot_be_made_ends_its_own_request(monkeypatch):
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(), request_id="r")
    monkeypatch.setattr(generation.choices[0], "_detokenizer", object())
    other, _ = frontend.add("hi", SamplingParams(), request_id="s")
    assert frontend.apply(outputs(emit("r/0", "x"), emit("s/0", "x", "length"))) == ["r/0"]
    assert isinstance(generation.error, RequestFailed)
    assert other.finished
    assert other.error is None


def test_abort_tells_the_reader_and_names_the_engines_requests():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(n=2), request_id="r")
    frontend.apply(outputs(emit("r/0", "x", "length")))
    assert frontend.abort("r") == ["r/1"]
    assert [choice.finish_reason for choice in generation.choices] == ["length", "abort"]
    assert frontend.abort("r") == []


def test_a_dead_engine_ends_all():
    frontend = make()
    generations = [frontend.add("hi", SamplingParams(n=2))[0] for _ in range(3)]
    frontend.fail_all(EngineDead("gone"))
    assert all(isinstance(g.error, EngineDead) for g in generations)
    assert not frontend.generations
    assert not frontend._children


def test_a_snapshot_does_not_change_and_can_be_sent():
    frontend = make()
    generation, _ = frontend.add("hi", SamplingParams(), request_id="r")
    frontend.apply(outputs(emit("r/0", "a", num_cached_tokens=3)))
    snapshot = generation.snapshot()
    frontend.apply(outputs(emit("r/0", "b", "length")))
    assert snapshot.outputs[0].token_ids == [97]
    assert snapshot.num_cached_tokens == 3
    assert msgspec.json.encode(snapshot, enc_hook=list)  # views are not JSON by themselves
    assert msgspec.json.encode(generation.snapshot())
