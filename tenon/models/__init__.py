"""Models: `tenon/models/<model_type>.py` is one family. `load_model` finds it by what the files say they are.

A family's module has: ARCHITECTURES (HF's class names), POOLING_ARCHITECTURES (those that give vectors, and
what they are for: embed or classify), ENCODER (True if attention looks both ways; may be left out),
GGUF_ARCHITECTURES, WEIGHTS (safetensors -> GGUF names), IGNORED (tensors that may be left over), TINY (a
small config.json, for tests), MODEL (the class), `read_config(checkpoint)`, and `gguf_row_order(config)` if
its GGUF files reorder rows (`row_order(config)` if those of both formats do).
"""

from tenon.models._load import load_model
from tenon.models._pack import pack_model

__all__ = ["load_model", "pack_model"]
