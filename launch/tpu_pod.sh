#!/usr/bin/env bash
# On a TPU pod slice a sweep, one share of it on the chips of every host, or a run that
# all hosts train together:
#
#   bash launch/tpu_pod.sh NAME ZONE HOSTS configs/sweeps/injection.py \
#       --out=SHARED --config.data.dir=DIR
#   bash launch/tpu_pod.sh NAME ZONE HOSTS --config=configs/lfm2d.py:base \
#       --workdir=SHARED/base
#
# NAME is a TPU VM of HOSTS hosts with four chips each, on all of which this repository
# lies in ~/lfm_jax, with .venv made there and the tpu extra installed. SHARED is a
# folder that all hosts see (a mounted bucket or disk). The same command again repeats
# nothing that finished. --dry-run, first, prints the commands.
set -euo pipefail

dry_run=no
if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
if [ $# -lt 4 ]; then
  echo "usage: tpu_pod.sh [--dry-run] NAME ZONE HOSTS SWEEP|--config=CONFIG [FLAG...]" >&2
  exit 2
fi
name=$1 zone=$2 hosts=$3
shift 3

# Every host by itself: its chips are a slice of their own.
alone="TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1"
alone="$alone TPU_VISIBLE_CHIPS=0,1,2,3"
pids=()
for ((host = 0; host < hosts; host++)); do
  case "$1" in
    *.py) program="$alone .venv/bin/python launch/sweep.py" last=--share=$host/$hosts ;;
    *) program=".venv/bin/python -m lfm_jax.main" last=--process=auto ;;
  esac
  on_host="cd lfm_jax && $program $(printf '%q ' "$@")$last"
  command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" "--worker=$host"
    "--command=$on_host")
  if [ "$dry_run" = yes ]; then
    printf '%q ' "${command[@]}"
    echo
  else
    "${command[@]}" &
    pids+=($!)
  fi
done
status=0
for pid in ${pids[@]+"${pids[@]}"}; do
  wait "$pid" || status=1
done
exit "$status"
