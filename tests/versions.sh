#!/usr/bin/env bash
# Runs the tests with another Ray and Python, in a virtual environment of its own:
#
#     tests/versions.sh RAY PYTHON [SET] [REQUIREMENT...]
#
#     tests/versions.sh 2.51.2 3.11                          the reduced set: what touches Ray's own code, some 4 minutes
#     tests/versions.sh 2.60.0 3.11 full                     all tests, some 25 minutes
#     tests/versions.sh 2.60.0 3.12 no-ray torch==2.11.0     the tests that need no Ray, with another torch
#
# All other versions are those of constraints.txt, except what Ray pins and, for older Rays, tests/constraints_older_ray.txt. PYTHON is a command's name without "python".
# VENV: where the virtual environment is made and left; without it, it is a temporary folder.
set -euo pipefail
script=$(realpath "$0")
cd "$(dirname "$script")/.."
if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$script"
    exit 2
fi
ray=$1 python=python$2 set=${3:-reduced}
shift $(($# < 3 ? $# : 3))
case $set in
    reduced) tests=(@tests/reduced_set.txt) ;;
    full) tests=() ;;
    no-ray) tests=(-m "not ray") ;;
    *) echo "SET is reduced, full or no-ray, not $set"; exit 2 ;;
esac

venv=${VENV:-$(mktemp -d)/venv}
[ -n "${VENV:-}" ] || trap 'rm -rf "$(dirname "$venv")"' EXIT
"$python" -m venv "$venv"
# shellcheck disable=SC1091
source "$venv/bin/activate"

# Ray asks for one version of Gymnasium, and the requirements given here come before the tested ones.
files=(constraints.txt)
grep -qx "ray==$ray" constraints.txt || files=(tests/constraints_older_ray.txt constraints.txt)
names=$(printf '%s\n' ray gymnasium "$@" | sed 's/[^A-Za-z0-9_-].*//' | paste -sd '|')
grep -hviE "^($names)==" "${files[@]}" | awk -F== '!seen[$1]++' > "$venv/constraints.txt"
pip install --quiet -c "$venv/constraints.txt" "ray[rllib,serve]==$ray" "$@" -e ".[test]"
python - << 'PYTHON'
from rllib_maddpg.results.versions import versions

print(", ".join(f"{name} {number}" for name, number in versions().items()))
PYTHON
export OMP_NUM_THREADS=1
python -m pytest "${tests[@]}"
