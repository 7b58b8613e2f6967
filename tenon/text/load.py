"""The tokenizer of a model's files."""

from __future__ import annotations

from tenon.core.files import ModelFiles
from tenon.formats.packed import METADATA_NAME
from tenon.text.tokenizer import Tokenizer


def load_tokenizer(files: ModelFiles) -> Tokenizer:
    """Raises ModelFileError when the files are malformed or lack a tokenizer, UnsupportedModel for an unknown
    kind."""
    metadata = files.directory / METADATA_NAME
    if files.kind == "gguf" or (files.kind == "packed" and metadata.is_file()):
        from tenon.formats.gguf import open_gguf
        from tenon.text.from_gguf import from_metadata

        return from_metadata(open_gguf(files.paths if files.kind == "gguf" else (metadata,)).metadata)
    from tenon.text.from_hf import from_directory

    return from_directory(files.directory)
