#!/usr/bin/env bash
# Runs everything that continuous integration runs. Anything after it goes to pytest.
set -euo pipefail

# shellcheck source=launch/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
make_environment
install_package "[test]"

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/pyrefly check
# A file stays with one process, as its tests share what was trained.
.venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder "$@"
