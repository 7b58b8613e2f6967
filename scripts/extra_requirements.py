"""Print the requirements of extras of pyproject.toml, one a line: extra_requirements.py test dev"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for extra in sys.argv[1:]:
    print("\n".join(project["optional-dependencies"][extra]))
