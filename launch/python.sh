# shellcheck shell=bash
# Sourced by the launchers: goes to the repository, makes .venv there once, and puts
# the package with the extras named in $1 (such as "[test]", or nothing) into it.

repository() {
  cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P
}

# A Python of at least 3.11, the plain name first.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "lfm_jax needs Python 3.11 or newer, and none is on the PATH." >&2
  return 1
}

make_environment() {
  local python
  # A half-made environment (no pip) is made again.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)"
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
      echo "$python cannot make virtual environments; on Debian and Ubuntu:" >&2
      echo "  sudo apt install python3-venv" >&2
      return 1
    fi
    "$python" -m venv --clear .venv
  fi
}

install_package() {
  local wanted
  wanted=$(cat setup.py lfm_jax/__init__.py | cksum)$1
  # The second time nothing has to be asked of a package index.
  if [ "$(cat ".venv/installed$1" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing (the first time takes minutes)"
    # Python compiles what is imported; most of what is installed never is.
    .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
      -e ".$1"
    echo "$wanted" >".venv/installed$1"
  fi
}

cd "$(repository)" || exit
