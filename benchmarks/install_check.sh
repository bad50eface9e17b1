#!/usr/bin/env bash
# What a user gets: builds wheel and sdist, installs the wheel into a fresh environment,
# starts it there and lifts. Prints sizes and times.
#
#   bash benchmarks/install_check.sh
#
# Needs `build` (pip install build) in the environment whose python comes first; takes
# minutes, as everything that the package needs is installed anew.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python -m build --outdir "$folder" . >"$folder/log" || { cat "$folder/log"; exit 1; }
wc -c "$folder"/*.whl "$folder"/*.tar.gz
python -m venv "$folder/fresh"
"$folder/fresh/bin/pip" install --quiet --disable-pip-version-check "$folder"/*.whl
export PATH="$folder/fresh/bin:$PATH"
source=$PWD
cd "$folder" # away from the sources, which python would find before the wheel

# Everything in the package that git knows is in both, but for what Python makes.
installed=$(python -c 'import lfm_jax; print(lfm_jax.__path__[0])')
mkdir sdist && tar -xzf ./*.tar.gz -C sdist --strip-components=1
for place in "$installed" sdist/lfm_jax; do
  diff -r --exclude=__pycache__ "$source/lfm_jax" "$place"
done
du -sh fresh

# The median of five, after one that compiles and fills the caches.
median() {
  local TIMEFORMAT=%R
  "$@" >/dev/null
  for _ in 1 2 3 4 5; do { time "$@" >/dev/null; } 2>&1; done | sort -n | sed -n 3p
}
echo "seconds to start python: $(median python -c '')"
echo "seconds for import lfm_jax: $(median python -c 'import lfm_jax')"
echo "seconds for import lfm_jax.serve: $(median python -c 'import lfm_jax.serve')"
echo "seconds for lfm --help: $(median lfm --help)"

python - <<'END'
import numpy as np

import lfm_jax

names = lfm_jax.load("lfm2d-small").skeleton("dog").keypoints
np.savez("in.npz", points2d=np.random.default_rng(0).random((1, len(names), 2)) * 99, names=names)
END
lfm lift in.npz --category=dog --out=out.npz
echo "seconds to lift one frame: $(median lfm lift in.npz --category=dog --out=out.npz)"
