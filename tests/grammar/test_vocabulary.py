import random

from .vocabularies import EOS, ids_of, make


def test_masks_hold_their_tokens(seed):
    rng, vocabulary = random.Random(seed), make(spare=3)
    ids = sorted(rng.sample(range(vocabulary.size), 40))
    assert ids_of(vocabulary.mask(ids), vocabulary) == ids
    assert vocabulary.mask([31]).dtype.name == "int32"
    assert EOS not in [t for t in range(vocabulary.size) if vocabulary.not_eos[t // 32] >> t % 32 & 1]
    spaces = {vocabulary.tokens[t] for t in ids_of(vocabulary.spaces, vocabulary)}
    assert spaces == {b" ", b"\t", b"\n", b"\r", b"  ", b"\n\n"}


def test_spelling_and_within():
    vocabulary = make(["<t", "<th", "hi", "ink>", "ink>\n", "ink>x", "a<think>b"])
    spelled = {vocabulary.tokens[t] for t in ids_of(vocabulary.spelling(b"<think>"), vocabulary)}
    assert spelled == {b"<", b"<t", b"<th"}

    def forbidden(rest: bytes) -> set[bytes]:
        free = set(ids_of(vocabulary.within(b"<think>", rest), vocabulary))
        return {vocabulary.tokens[t] for t in range(vocabulary.size) if t not in free}

    assert forbidden(b"<think>") == {b"a<think>b"}
    assert forbidden(b"ink>") == {b"ink>x"}
