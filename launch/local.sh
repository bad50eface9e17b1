#!/usr/bin/env bash
# Trains 2D-LFM on the embedded zoo, here and on the CPU if need be, and shows what it
# learned. Anything after it goes to the training command:
#
#   bash launch/local.sh
#   bash launch/local.sh --config=configs/lfm2d.py:archive --config.data.dir=DIR \
#       --workdir=runs/archive
#
# The same command again goes on where it stopped.
set -euo pipefail

# shellcheck source=launch/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
make_environment
install_package ""

# A second --config would define every --config.key=value once more, which is refused.
if [[ ! " $* " =~ " --config"[=\ ] ]]; then
  set -- --config=configs/lfm2d.py "$@"
fi
exec .venv/bin/python -m lfm_jax.main --workdir=runs/lfm2d "$@"
