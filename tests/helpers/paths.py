"""Where things lie in a checkout, and what other processes need to import the package and the tests."""

import os
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
EXAMPLES = ROOT / "examples"
EXTENDING = EXAMPLES / "extending"
# Actors import the classes of test modules by the modules' names.
FOLDERS = sorted(path.parent for path in TESTS.glob("*/test_*.py"))
PLACES = dict.fromkeys(map(str, (HELPERS, TESTS, ROOT, EXTENDING, *FOLDERS)))
PYTHONPATH = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")])
