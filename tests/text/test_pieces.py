"""How tokens are spelled."""

from tokenizers import pre_tokenizers

from tenon.text.pieces import ByteLetters, SpacedPieces


def test_byte_letters_are_those_of_tokenizers():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces = ByteLetters()
    assert sorted(pieces.to_bytes(letter) for letter in alphabet) == [bytes([byte]) for byte in range(256)]
    for text in ("a é\n\t", "世界"):
        ((word, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
            text
        )
        assert pieces.to_bytes(word) == text.encode()


def test_text_that_is_not_made_of_byte_letters():
    assert ByteLetters().to_bytes("<｜end▁of▁sentence｜>") == "<｜end▁of▁sentence｜>".encode()


def test_spaced_pieces():
    pieces = SpacedPieces(strip_first_space=True)
    assert pieces.to_bytes("▁the▁") == b" the "
    assert pieces.to_bytes("<0x0A>") == b"\n"
    assert pieces.to_bytes("<0xZZ>") == b"<0xZZ>"
