"""What ends an answer, and what of it is shown: GGUF files often name one end token of two, and a template's
end marker must not appear in the text even when special tokens are shown."""

import pytest

from tenon.config import EngineArgs
from tenon.core.messages import AddRequest, EngineOutput, Outputs, Ready
from tenon.core.request import Request
from tenon.core.sampling import SamplingParams
from tenon.engine import oracle
from tenon.engine.finish import end_of
from tenon.engine.frontend import Frontend
from tests.engine.simulation import make_engine

READY = Ready(max_model_len=64, num_kv_blocks=8, block_size=32, vocab_size=260, load_seconds=0.0)


def start(**params):
    frontend = Frontend(oracle.tokenizer(), READY, EngineArgs(load_format="oracle").resolve())
    generation, (add,) = frontend.add("hi", SamplingParams(**params), request_id="r")
    return frontend, generation, add


def emit(frontend: Frontend, *tokens: int, **fields) -> None:
    frontend.apply(Outputs(outputs=[EngineOutput(request_id="r/0", new_token_ids=[*tokens], **fields)]))


def test_the_tokenizers_end_tokens_go_to_the_engine():
    *_, add = start()
    assert add.eos_token_ids == [oracle.EOS]


def test_the_models_and_the_tokenizers_end_tokens_both_end_a_request():
    params = SamplingParams(seed=1)
    add = AddRequest(request_id="r", prompt_token_ids=[5], params=params, eos_token_ids=[7])
    for token, expected in ((7, ("stop", None)), (9, ("stop", None)), (8, (None, None))):
        request = Request(add, 0, 100, frozenset({9}))
        request.tokens.append(token)
        assert end_of(request) == expected


def test_an_engine_ends_at_the_front_ends_token():
    engine = make_engine(eos=())
    params = SamplingParams(temperature=0.0, max_tokens=20, seed=0)
    add = AddRequest(request_id="a", prompt_token_ids=[1, 2, 3], params=params)

    def run(add: AddRequest) -> list[EngineOutput]:
        engine.handle(add)
        outputs = []
        while engine.has_work:
            outputs += engine.step().outputs
        return outputs

    tokens = [token for output in run(add) for token in output.new_token_ids]
    assert len(tokens) == 20
    add.eos_token_ids = [tokens[4]]
    ended = run(add)
    assert [token for output in ended for token in output.new_token_ids] == tokens[
        : tokens.index(tokens[4]) + 1
    ]
    assert (ended[-1].finish_reason, ended[-1].stop_reason) == ("stop", None)


@pytest.mark.parametrize("include", [False, True])
def test_the_token_that_ends_an_answer_is_not_in_its_text(include):
    frontend, generation, _ = start(skip_special_tokens=False, include_stop_str_in_output=include)
    emit(frontend, *b"yes", oracle.START)
    emit(frontend, oracle.EOS, finish_reason="stop")
    choice = generation.snapshot().outputs[0]
    assert choice.text == "yes<|start|>" + "<|eos|>" * include
    assert choice.token_ids == [*b"yes", oracle.START, oracle.EOS]


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_token_is_not_in_the_text(include):
    frontend, generation, _ = start(stop_token_ids=[ord("!")], include_stop_str_in_output=include)
    emit(frontend, *b"stop")
    emit(frontend, ord("!"), finish_reason="stop", stop_reason=ord("!"))
    choice = generation.snapshot().outputs[0]
    assert choice.text == "stop" + "!" * include
    assert choice.stop_reason == ord("!")


def test_a_last_token_at_the_length_limit_is_shown():
    frontend, generation, _ = start(skip_special_tokens=False)
    emit(frontend, *b"yes", finish_reason="length")
    assert generation.snapshot().outputs[0].text == "yes"
