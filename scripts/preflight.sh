#!/bin/sh
# Is everything here that `make` needs? Says in one line what to install otherwise.
# usage: preflight.sh PYTHON
python=$1
packages="make g++ python3 python3-venv python3-dev"

fail() {
    echo "error: $1; on Debian or Ubuntu: sudo apt install -y $packages" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no $python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is older than Python 3.11 (choose another with: make PYTHON=python3.12 ...)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot create virtual environments"
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
    fail "the header files of $python are missing"
echo 'int main() {}' | "${CXX:-g++}" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null ||
    fail "there is no C++20 compiler (${CXX:-g++})"
