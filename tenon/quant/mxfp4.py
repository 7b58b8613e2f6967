"""Experts in MXFP4 (OCP Microscaling Formats 1.0), everything else in floats, as OpenAI publishes GPT-OSS.

`experts.<name>_blocks` [experts, rows, columns / 32, 16] holds two codes of E2M1 in a byte, the first in the
low nibble, and `experts.<name>_scales` [experts, rows, columns / 32] their exponents (E8M0).
"""

from __future__ import annotations

from tenon.layers.packed import PackedScheme

SCHEME = PackedScheme(experts_stored="mxfp4")
