"""Weights stored as they were trained: f32, f16 or bf16 tensors `<layer>.weight`."""

from __future__ import annotations

from tenon.layers.packed import PackedScheme

SCHEME = PackedScheme()
