"""The tokenizer of a model's files."""

from __future__ import annotations

from tenon.core.files import ModelFiles
from tenon.text.tokenizer import Tokenizer


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """Raises ModelFileError when the files are malformed or lack a tokenizer, UnsupportedModel for an unknown
    kind."""
    if files.kind == "gguf":
        from tenon.formats.gguf import open_gguf
        from tenon.text.from_gguf import from_metadata

        return from_metadata(open_gguf(files.paths).metadata)
    from tenon.text.from_hf import from_directory

    return from_directory(files.directory)
