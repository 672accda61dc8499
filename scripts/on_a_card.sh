#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that only a machine with an NVIDIA card can tell, in one go: `sh scripts/on_a_card.sh [FOLDER] [STEP …]`.
# Steps: card, nvml, tests, memcheck, racecheck, bench, selftest (default: all). Each one's output goes to FOLDER/STEP.log
# (build/card); a step that fails does not stop the others. Changes no setting of the card.
set -u
cd "$(dirname "$0")/.." || exit 2
out=${1:-build/card}
[ $# -gt 0 ] && shift
steps=${*:-card nvml tests memcheck racecheck bench selftest}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out" || exit 2
PYTHONUNBUFFERED=1 QUBIX_TEST_CUDA=card
export PYTHONUNBUFFERED QUBIX_TEST_CUDA

watched() { # TOOL: the suite's small jobs of every kernel, in one process that compute-sanitizer watches
    compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 "$python" -m tests.kernels.card
}

step() {
    case $1 in
    card) nvidia-smi && uname -sr && "$python" -c 'from importlib.metadata import PackageNotFoundError, version
for name in ("numba", "numba-cuda", "llvmlite", "numpy", "cuda-bindings", "cuda-core", "cuda-toolkit", "onnxruntime"):
    try: print(name, version(name))
    except PackageNotFoundError: print(name, "is missing")' ;;
    nvml) "$python" -m pytest -p no:cacheprovider -sq tests/card/test_node_card.py ;;
    tests) "$python" -m pytest -p no:cacheprovider -q -k "cuda or card" tests/card/test_cuda_card.py \
        tests/kernels/test_conformance_results.py tests/kernels/test_conformance_honest.py ;;
    memcheck | racecheck) watched "$1" ;;
    bench) "$python" -m bench cards ;;
    selftest) "$python" -m qubix_node.selftest --json --devices gpu --data-dir "$(mktemp -d)" ;;
    *) echo "no step is called $1" && return 2 ;;
    esac
}

failed=0
for name in $steps; do
    began=$(date +%s)
    (step "$name") >"$out/$name.log" 2>&1
    status=$?
    [ "$status" -eq 0 ] || failed=1
    echo "$name: status $status, $(($(date +%s) - began)) s, see $out/$name.log"
done
exit "$failed"
