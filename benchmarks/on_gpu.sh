#!/usr/bin/env bash
# All that needs a GPU, in under six minutes: facts of the machine, the CUDA tests, how long an update takes, how training scales,
# and what many trials do with one Learner.
#
#     bash benchmarks/on_gpu.sh FOLDER               # on a machine with a GPU; JSON and logs go to FOLDER
#     DEVICE=cpu bash benchmarks/on_gpu.sh FOLDER    # the same steps, shortened, anywhere: whether the script itself is sound
#
# A step that fails or takes too long does not stop the next one. The exit status is 1 if any did.
# Needs of the machine: python3 (PYTHON=... for another one) with what the package needs, pytest, pytest-xdist, mpe2.
set -uo pipefail
[ $# -eq 1 ] || { echo "usage: bash $0 FOLDER" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
device=${DEVICE:-cuda} python=${PYTHON:-python3} patience=1 failed=0
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 RAY_worker_niceness=0
case $device in
  cuda)
    update=(--repeats 2 --seconds 0.25 --rows 20000)
    grid=(--repeats 2 --seconds 0.05)
    train=(--repeats 2 --seconds 1 --rows 100000)
    shared=(--repeats 2 --seconds 0.25 --rows 20000 --trials 16)
    ;;
  cpu)
    update=(--repeats 1 --seconds 0 --num-envs 2 --batch 32 --rows 300 --many-agents 4 --drawn)
    grid=(--repeats 1 --seconds 0 --num-envs 2 --batch 32)
    train=(--repeats 1 --seconds 0.5 --num-envs 2 --batch 32 --rows 300 --runners 1 2)
    shared=(--repeats 1 --seconds 0 --num-envs 2 --batch 32 --rows 300 --trials 2)
    export MADDPG_CUDA_TESTS_ON=cpu
    patience=4
    ;;
  *) echo "DEVICE=$device must be cuda or cpu" >&2; exit 2 ;;
esac
bench=("$python" -m benchmarks --device "$device" --scenarios simple_spread --plots "$out")

# step NAME UNTIL COMMAND...: its output to NAME.log, its end here. It may last until so many seconds after the start of all.
step() {
  local name=$1 limit=$((patience * $2 - SECONDS)) start=$SECONDS status
  shift 2
  timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1
  status=$?
  [ $status -eq 0 ] || failed=1
  echo "{\"step\": \"$name\", \"status\": $status, \"seconds\": $((SECONDS - start)), \"limit\": $limit}" | tee -a "$out/steps.jsonl"
  [ $status -eq 0 ] || tail -n 25 "$out/$name.log"
}

: > "$out/steps.jsonl"
SECONDS=0
step facts 25 "$python" -m benchmarks.device_facts "$out/facts.json"
# Only files with such tests are read: others may need what this machine does not have.
mapfile -t tests < <(grep -rl --include='test_*.py' --exclude='*whole_runs*' 'mark\.cuda' tests)
pytest=("$python" -m pytest -m cuda -n 0 -v --tb=short -p no:cacheprovider)
step tests 90 "${pytest[@]}" "${tests[@]}" --junitxml="$out/tests.xml"
step update 135 "${bench[@]}" update "${update[@]}" --profile "$out/profiles" --save "$out/update.json"
step train 205 "${bench[@]}" train "${train[@]}" --save "$out/train.json"
step shared 300 "${bench[@]}" shared "${shared[@]}" --save "$out/shared.json"
step runs 330 "${pytest[@]}" tests/cuda/test_cuda_whole_runs.py --junitxml="$out/runs.xml"
step grid 354 "${bench[@]}" --grid "${grid[@]}" --save "$out/grid.json"
exit $failed
