"""Print requirements from pyproject.toml, one a line: requirements.py test dev build-system"""

import sys
import tomllib
from pathlib import Path

config = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
sets = {**config["project"]["optional-dependencies"], "build-system": config["build-system"]["requires"]}
for name in sys.argv[1:]:
    print("\n".join(sets[name]))
