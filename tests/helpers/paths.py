"""Where things lie in a checkout, and what other processes need to import the package and the tests."""

import os
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
EXAMPLES = ROOT / "examples"
# Actors import the classes of test modules by the modules' names.
FOLDERS = sorted(path.parent for path in TESTS.glob("*/test_*.py"))
PYTHONPATH = os.pathsep.join([*dict.fromkeys(map(str, (HELPERS, TESTS, ROOT, *FOLDERS))), os.environ.get("PYTHONPATH", "")])
