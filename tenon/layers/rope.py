"""Rotary position embedding (Su et al. 2021) and the ways to stretch it over a longer context.

A pair of elements turns by position * frequency; frequencies are theta^(-2i/E) for pair i. A scaling changes
the frequencies, and for yarn also multiplies cos and sin by a constant. It all ends in one table.

Shape letters: P positions, E rotated elements of a head, h = E / 2 pairs, O positions in a step of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SCALINGS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional")


@dataclass(frozen=True, slots=True)
class Temperature:
    """q is multiplied by 1 + scale * log(1 + floor((position + 1) / step)), so that attention over long
    contexts stays sharp (Nakanishi 2025; Llama 4)."""

    scale: float
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class RopeConfig:
    """Names of the fields are those of HF's `rope_parameters`; unused ones keep their defaults."""

    rot_dim: int
    theta: float
    scaling: str = "default"  # one of SCALINGS
    factor: float = 1.0
    original_max_position: int = 0  # context length before scaling
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    # Of the frequencies: llama3's scaling, as GGUF has it; longrope's for contexts up to the original one.
    divisors_h: np.ndarray | None = None
    turned: float = 1.0  # proportional: the share of the pairs, from the fastest on, that turn at all
    long_divisors_h: np.ndarray | None = None  # longrope's for longer ones
    temperature: Temperature | None = None  # of q, which grows with the position


class Rope:
    """The table of all positions below `num_positions`, made when it is first needed; if it was shortened
    before, of fewer, which turn as they would have in the long one."""

    def __init__(self, config: RopeConfig, num_positions: int) -> None:
        self.config = config
        self.num_positions = num_positions
        self._length = num_positions

    def shorten(self, length: int) -> None:
        """No position from `length` on will be asked for."""
        self._length = min(length, self._length)

    @cached_property
    def cos_sin_PE(self) -> np.ndarray:
        """float32 [P, E]: cos of the E / 2 pairs, then sin; the attention factor is multiplied in."""
        frequency_h = frequencies(self.config, self.num_positions)
        return _table(frequency_h, self._length, attention_factor(self.config))

    @cached_property
    def q_scale_P(self) -> np.ndarray | None:
        """float32 [P]: what q is multiplied by, if there is something."""
        temperature = self.config.temperature
        if temperature is None:
            return None
        steps_P = np.floor(np.arange(1, self._length + 1) / temperature.step)
        return (1 + temperature.scale * np.log1p(steps_P)).astype(np.float32)


def frequencies(config: RopeConfig, num_positions: int) -> np.ndarray:
    """Radians per position of each pair, float64 [h]."""
    theta = config.theta
    if config.scaling == "dynamic":
        theta = _dynamic_theta(config, num_positions)
    frequency_h = theta ** (-np.arange(0, config.rot_dim, 2) / config.rot_dim)
    if (divisors_h := _divisors(config, num_positions)) is not None:
        frequency_h = frequency_h / divisors_h
    if config.scaling == "proportional":  # Gemma 4
        frequency_h[int(config.turned * config.rot_dim // 2) :] = 0
        return frequency_h / config.factor
    if config.scaling == "linear":  # position interpolation (Chen et al. 2023)
        return frequency_h / config.factor
    if config.scaling == "llama3":
        return _llama3(config, frequency_h)
    if config.scaling == "yarn":
        return _yarn(config, frequency_h)
    return frequency_h


def attention_factor(config: RopeConfig) -> float:
    """What cos and sin are multiplied by: 1, but for yarn (Peng et al. 2023, section 3.4) and longrope."""
    if config.scaling not in ("yarn", "longrope"):
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    if config.scaling == "longrope":
        stretch = math.log(max(config.factor, 1.0)) / math.log(config.original_max_position)
        return math.sqrt(1 + stretch)
    if config.mscale and config.mscale_all_dim:
        return _yarn_mscale(config.factor, config.mscale) / _yarn_mscale(config.factor, config.mscale_all_dim)
    return _yarn_mscale(config.factor, 1.0)


def _table(frequency_h: np.ndarray, num_positions: int, scale: float) -> np.ndarray:
    """scale * [cos | sin] of position * frequency: float32 [P, 2 h], rounded from values exact to 1e-15.

    position = start + offset, so each is a product of two numbers exp(i * angle): cos and sin of
    every entry would take half a second for a context of 131072.
    """
    step, half = 256, len(frequency_h)
    offset_Oh = scale * np.exp(1j * np.outer(np.arange(step), frequency_h))
    table_PE = np.empty((num_positions, 2 * half), np.float32)
    for start in range(0, num_positions, step):
        rows_OE = table_PE[start : start + step]
        turned_Oh = np.exp(1j * (start * frequency_h)) * offset_Oh[: len(rows_OE)]
        rows_OE[:, :half], rows_OE[:, half:] = turned_Oh.real, turned_Oh.imag
    return table_PE


def _divisors(config: RopeConfig, num_positions: int) -> np.ndarray | None:
    """LongRoPE (Ding et al. 2024) has two sets of divisors, found by search: for the original context, and
    for longer ones.

    Which of them counts is decided once, as for dynamic scaling, by the longest sequence the engine admits:
    transformers goes by the length of the sequence at hand, so K that is cached already would be of the other
    set as soon as a sequence outgrows the original context.
    """
    if config.scaling == "longrope" and num_positions > config.original_max_position:
        return config.long_divisors_h
    return config.divisors_h


def _dynamic_theta(config: RopeConfig, num_positions: int) -> float:
    """NTK-aware scaling for a context of `num_positions`.

    The original recomputes it as a sequence grows, which would change what is in the cache already; the
    longest sequence the engine admits decides here, once. Up to the original context it changes nothing.
    """
    ratio = max(num_positions / config.original_max_position, 1.0)
    stretch = config.factor * ratio - (config.factor - 1)
    return config.theta * stretch ** (config.rot_dim / (config.rot_dim - 2))


def _llama3(config: RopeConfig, frequency_h: np.ndarray) -> np.ndarray:
    """Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated."""
    turns_h = config.original_max_position * frequency_h / (2 * math.pi)  # in the original context
    low, high = config.low_freq_factor, config.high_freq_factor
    if high == low:  # nothing lies between
        keep_h = (turns_h >= low).astype(np.float64)
    else:
        keep_h = np.clip((turns_h - low) / (high - low), 0, 1)
    return frequency_h * (keep_h + (1 - keep_h) / config.factor)


def _yarn(config: RopeConfig, frequency_h: np.ndarray) -> np.ndarray:
    """YaRN (Peng et al. 2023), "NTK by parts": like llama3, but the ramp is linear in the pair's index."""

    def pair_with(turns: float) -> float:
        """The index of the pair that turns so often in the original context."""
        wavelength = config.original_max_position / turns
        return config.rot_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(config.theta))

    low, high = pair_with(config.beta_fast), pair_with(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.rot_dim - 1)
    if low == high:
        high += 0.001
    stretch_h = np.clip((np.arange(len(frequency_h)) - low) / (high - low), 0, 1)
    return frequency_h * (1 - stretch_h + stretch_h / config.factor)


def _yarn_mscale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
