"""Draw what bench/compare.py measured: python bench/picture.py RESULT.json docs/images/engines

Writes PATH.png and PATH.svg. Needs matplotlib, which nothing else of tenon does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

COLORS = {"tenon": "#1f6f8b", "tenon int8": "#6fa8bb", "llama.cpp": "#b0b7bd", "OpenVINO GenAI": "#d8a657"}


def draw(result: dict[str, Any], out: str) -> None:
    """One panel per case; bars are medians over the rounds, a tick marks the best round."""
    matplotlib.rcParams["svg.hashsalt"] = "tenon"  # the same file from the same figures
    engines = list(result["tokens_per_s"])
    figure, axes = plt.subplots(1, len(result["cases"]), figsize=(10, 2.6))
    for axis, case in zip(axes, result["cases"], strict=True):
        for place, engine in enumerate(engines):
            samples = sorted(result["tokens_per_s"][engine][case])
            middle = (samples[(len(samples) - 1) // 2] + samples[len(samples) // 2]) / 2
            axis.barh(place, middle, color=COLORS[engine])
            axis.plot([samples[-1]] * 2, [place - 0.4, place + 0.4], color="#333333", linewidth=1.5)
            axis.annotate(f" {middle:.0f}", (0, place), va="center", fontsize=9)
        axis.set_yticks(range(len(engines)), engines if axis is axes[0] else [""] * len(engines))
        axis.invert_yaxis()
        axis.set_title(f"{case}, tokens/s", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['model']}, {result['machine']}: median (bar) and best round (tick)", fontsize=9)
    figure.tight_layout()
    figure.savefig(f"{out}.png", dpi=120)
    figure.savefig(f"{out}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
