#!/usr/bin/env bash
# Says in one line what is missing before anything long starts: check_tools.sh [cargo|g++|python] ...
set -euo pipefail

missing() {
    echo "setup: $1" >&2
    exit 1
}

for tool in "$@"; do
    case "$tool" in
    cargo)
        command -v cargo >/dev/null ||
            missing "cargo not found; install Rust with rustup (https://rustup.rs), then open a new shell"
        ;;
    g++)
        command -v "${CXX:-g++}" >/dev/null ||
            missing "${CXX:-g++} not found; install a C++ compiler (Debian, Ubuntu: apt install g++)"
        ;;
    python)
        python="${PYTHON:-python3}"
        command -v "$python" >/dev/null ||
            missing "$python not found; install Python 3.9 or newer with pip (Debian, Ubuntu: apt install python3-pip)"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
            missing "$python is older than 3.9; set PYTHON to a newer one"
        "$python" -m pip --version >/dev/null 2>&1 ||
            missing "$python has no pip; install it (Debian, Ubuntu: apt install python3-pip)"
        ;;
    *)
        missing "check_tools.sh knows no tool '$tool'"
        ;;
    esac
done
