from tenon.bench.prompts import PromptShape, text_prompts, token_prompts


def test_prompts_have_their_length_and_range():
    prompts = token_prompts(20, PromptShape(33), vocab_size=1000, seed=3)
    assert {len(prompt) for prompt in prompts} == {33}
    assert all(256 <= token < 1000 for prompt in prompts for token in prompt)
    assert len({tuple(prompt) for prompt in prompts}) == 20
    assert prompts == token_prompts(20, PromptShape(33), vocab_size=1000, seed=3)


def test_a_small_vocabulary_is_used_whole():
    assert all(token < 10 for prompt in token_prompts(5, PromptShape(20), 10, 0) for token in prompt)


def test_prefixes_are_shared():
    prompts = token_prompts(6, PromptShape(20, prefix_len=16, num_prefixes=2), 1000, seed=0)
    assert len({tuple(prompt[:16]) for prompt in prompts}) == 2
    assert len({tuple(prompt) for prompt in prompts}) == 6
    assert {len(prompt) for prompt in prompts} == {20}


def test_words():
    (prompt,) = text_prompts(1, PromptShape(12), seed=0)
    assert len(prompt.split()) == 12
