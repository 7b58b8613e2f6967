"""GGUF: every tensor `<layer>.weight` says its own type, floats or one of ggml's block formats.

The types of stacked layers may differ (v often has more bits than q and k): weights are packed from parts.
"""

from __future__ import annotations

from tenon.layers.packed import PackedScheme

SCHEME = PackedScheme()
