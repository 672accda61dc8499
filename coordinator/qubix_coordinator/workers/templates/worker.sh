#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Shares this machine's GPU on QUBIX (@@TITLE@@). Start it:  sh @@FILE@@
#
# It installs into your own folder and asks for no password: a Python environment with packages that are each checked by
# their hash, and a service that starts when you log in. Started again it mends or updates what is there.
#   sh @@FILE@@ --status | --update | --uninstall
#
# A pairing code stands in it, which serves once and for ten minutes: do not pass this file on.
set -eu
umask 077

main() {
    coordinator=@@COORDINATOR@@
    coordinator_key=@@COORDINATOR_KEY@@
    network=@@NETWORK@@
    code=@@CODE@@
    version=@@VERSION@@
    pythons=@@PYTHONS@@
    compiled=@@COMPILED@@
    compiled_said=@@COMPILED_SAID@@
    root=${QUBIX_WORKER_ROOT:-${XDG_DATA_HOME:-$HOME/.local/share}/qubix-worker}

    case ${1:-} in
        '') install ;;
        --status | --update | --uninstall)
            [ -x "$root/bin/qubix-worker" ] || fail 'Worker' "none is installed in $root" 'an installed worker' 'Start this file without words first'
            exec "$root/bin/qubix-worker" "${1#--}"
            ;;
        *) fail 'Usage' "there is no word $1" '--status, --update, --uninstall or none' 'Leave it out to install' ;;
    esac
}

# The words of a self-test: what was looked at, what was found, what is needed, what to do.
fail() {
    printf 'FAIL  %s: %s\n      needs: %s\n      do:    %s\n' "$1" "$2" "$3" "$4" >&2
    exit 1
}

say() { printf '%s\n' "$*"; }

install() {
    look_at_system
    find_python
    find_flavour
    requirements=$(pinned "py$minor$flavour") || fail 'Packages' "there are no files for py$minor$flavour" "one of: $pythons" 'Install one of these Pythons, and start this file again'
    look_at_compiled
    home=$root/versions/$version
    fresh=no
    [ -e "$root" ] || fresh=yes
    if [ -x "$home/bin/python" ] && [ -f "$home/.whole" ]; then
        say "QUBIX worker $version is installed already in $root."
        made=no
    else
        made=yes
    fi
    trap undo EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    [ "$made" = no ] || environment
    QUBIX_PAIRING_CODE=$code "$home/bin/python" -m qubix_node.service --root "$root" install \
        --version "$version" --coordinator "$coordinator" --coordinator-key "$coordinator_key" --network "$network" \
        --lock "py$minor$flavour"
    trap - EXIT INT TERM HUP
    # Listed: what pip left out, so that this did not wait for it. Behind whatever the machine has to do.
    [ "$made" = no ] || nice -n 19 "$home/bin/python" -m compileall -q "$home/lib" >/dev/null 2>&1 || :
    say 'Done.'
}

# Nothing half-installed stays. What was here before stays as it was.
undo() {
    status=$?
    trap - EXIT
    if [ "$status" != 0 ]; then
        if [ "$fresh" = yes ]; then
            rm -rf "$root"
            say 'Nothing was left behind.' >&2
        elif [ "$made" = yes ]; then
            rm -rf "$home"
            say 'What was here before is as it was.' >&2
        fi
    fi
    exit "$status"
}

look_at_system() {
    found=$(uname -s)
    [ "$found" = @@UNAME@@ ] || fail 'System' "this is $found" @@TITLE@@ 'Download the file for this system from the page'
    if [ "$(id -u)" = 0 ]; then
        fail 'User' 'this is root' 'a user of its own: jobs of others run here' 'Start it as the user who is to own it, without sudo'
    fi
}

find_python() {
    for minor in $pythons; do
        for python in "python$minor" python3; do
            python=$(command -v "$python") || continue
            if "$python" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$minor')" 2>/dev/null; then
                say "Python $minor: $python"
                return
            fi
        done
    done
    fail 'Python' "none of $pythons with its venv module is on the PATH" "one of $pythons" @@PYTHON_REMEDY@@
}

# The CUDA runtime that fits the NVIDIA driver; without one, none.
find_flavour() {
    flavour=
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/\..*//p') || driver=
    case $driver in
        '' | *[!0-9]*) ;;
        *)
            if [ "$driver" -ge 580 ]; then
                flavour=-cuda13
            elif [ "$driver" -ge 525 ]; then
                flavour=-cuda12
            else
                say "The NVIDIA driver $driver is older than 525: the GPU cannot be used until it is newer."
            fi
            ;;
    esac
}

# libp2p's compiled part comes ready for some systems; for others it is compiled here, and needs what that takes.
look_at_compiled() {
    tag=cp$(printf '%s' "$minor" | tr -d .)
    case " $compiled " in
        *" $tag-$(uname -s)-$(uname -m) "*) return ;;
    esac
    if ! printf '#include <gmp.h>\nint main(void) { return 0; }\n' | ${CC:-cc} -x c - -lgmp -o /dev/null 2>/dev/null; then
        fail "libp2p's compiled part" "it is not ready for Python $minor on $(uname -sm), and cannot be compiled here" \
            "a C compiler with gmp.h, or one of:$compiled_said" @@COMPILER_REMEDY@@
    fi
}

pinned() {
    found=$(requirements_list | sed -n "s/^$1 //p")
    [ -n "$found" ] && printf '%s' "$found"
}

requirements_list() {
    cat <<'QUBIX_LIST'
@@REQUIREMENTS@@
QUBIX_LIST
}

# Into a folder of this version's own, which counts once it is whole.
environment() {
    say "Installing QUBIX worker $version into $root (a minute or two) ..."
    rm -rf "$home"
    mkdir -p "$home"
    log=$home/install.log
    "$python" -m venv "$home" >>"$log" 2>&1 || fail 'Python' "$(tail -n 3 "$log")" 'a Python that makes environments' @@PYTHON_REMEDY@@
    # shellcheck disable=SC2086  # names and hashes, without blanks
    "$home/bin/python" - "$coordinator" "$home/files" $requirements @@WHEELS@@ <<'QUBIX_FETCH' || fail 'Download' 'see above' "the files of $coordinator, unchanged" 'Look at the network; if this file is older than a day, download it again from the page'
import hashlib, os, sys, urllib.request
base, folder, pairs = sys.argv[1], sys.argv[2], sys.argv[3:]
os.makedirs(folder, exist_ok=True)
for sha256, name in zip(pairs[::2], pairs[1::2]):
    try:
        with urllib.request.urlopen(f"{base}/worker/files/{sha256}/{name}", timeout=60) as answer:
            data = answer.read(256 * 1024 * 1024)
    except OSError as problem:
        sys.exit(f"{name}: {problem}")
    if hashlib.sha256(data).hexdigest() != sha256:
        sys.exit(f"{name}: its content is not what this file expects")
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
# pip prefers what it knows the hash of beforehand.
with open(os.path.join(folder, "links.html"), "w") as page:
    page.writelines(f'<a href="{name}#sha256={sha256}">{name}</a>\n' for sha256, name in zip(pairs[::2], pairs[1::2]))
QUBIX_FETCH
    name=${requirements#* }
    "$home/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps --no-compile \
        --require-hashes --find-links "$home/files/links.html" -r "$home/files/$name" >>"$log" 2>&1 ||
        fail 'Packages' "$(tail -n 5 "$log")" 'packages of the index that pip is set to, each by its hash' 'Look at the network and at pip config list, then start this file again'
    rm -rf "$home/files"
    : >"$home/.whole"
}

main "$@"
