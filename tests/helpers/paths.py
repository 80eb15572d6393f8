"""Where things lie in a checkout, and what other processes need to import the package and the tests' helpers."""

import os
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
EXAMPLES = ROOT / "examples"
EXTENDING = EXAMPLES / "extending"
PYTHONPATH = os.pathsep.join([*map(str, (HELPERS, TESTS, ROOT, EXTENDING)), os.environ.get("PYTHONPATH", "")])
