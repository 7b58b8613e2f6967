"""Fail when a measured file's line coverage is under the floor: coverage_floor.py PERCENT"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def below(report: dict, floor: float) -> list[tuple[str, float]]:
    """(file, percent of lines covered) of every file of a coverage JSON report that is under `floor`."""
    covered = {name: data["summary"]["percent_covered"] for name, data in report["files"].items()}
    return sorted((name, percent) for name, percent in covered.items() if percent < floor)


def main() -> int:
    floor = float(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)], check=True)
        files = below(json.loads(path.read_text()), floor)
    for name, percent in files:
        print(f"{name}: {percent:.1f} % of its lines are covered, which is under {floor:g} %")
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
