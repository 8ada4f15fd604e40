#!/usr/bin/env bash
#SBATCH --job-name=ctl_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#
# Runs ctl_jax.main under Slurm, from the checkout's root, with a workdir that all nodes see.
#
# Eight workers, each with one GPU (each takes whole trials):
#
#   sbatch --array=0-7 --gpus-per-node=1 --time=4:00:00 launch/slurm.sh \
#     --config=configs/nevis.py:variant=SHORT --workdir=/shared/runs/nevis
#
# One worker that is a group of two nodes, which train each trial together:
#
#   sbatch --nodes=2 --gpus-per-node=8 --time=4:00:00 launch/slurm.sh \
#     --config=configs/nevis.py:variant=SHORT --workdir=/shared/runs/nevis
#
# With both, --array=0-3 --nodes=2, there are four such groups. A task uses all GPUs of its node.
# Any other option of sbatch (--partition, --mem, ...) comes before launch/slurm.sh as well.
#
# Two minutes before its time is over (--signal=TERM@120), or when it is preempted, a job saves,
# ends with status 75, and is put into the queue again; it goes on from the workdir. One that is
# cancelled (scancel) saves as well, and stays out of the queue; the same sbatch goes on with it.
#
# CTL_JAX_PYTHON names the Python to run; .venv/bin/python where sbatch was called is the default.

set -euo pipefail

# The second: by SIGTERM before it could say so, e.g. while a group waited for its processes.
readonly preempted=75 terminated=143

fail() {
  echo "launch/slurm.sh: $1" >&2
  exit 2
}

case "${1:-}" in
  -h | --help)
    # The comment above.
    sed -n '/^# Runs/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

workdir=''
config=''
for argument in "$@"; do
  case "$argument" in
    --workdir=*) workdir="${argument#*=}" ;;
    --config=*) config="${argument#*=}" ;;
    --worker=* | --group=*) fail "$argument: expected none, the job's number says which worker" ;;
    --*) ;;
    *) fail "'$argument': expected flags of ctl_jax.main as --name=value, see --help" ;;
  esac
done
[[ -n "$config" ]] || fail 'expected --config=FILE, see --help'
[[ -n "$workdir" ]] || fail 'expected --workdir=FOLDER that all nodes see, see --help'
[[ -n "${SLURM_JOB_ID:-}" ]] || fail 'not in a Slurm job; expected sbatch launch/slurm.sh ...'

# sbatch runs a copy of this file, so the checkout is where it was called.
python="${CTL_JAX_PYTHON:-${SLURM_SUBMIT_DIR:-.}/.venv/bin/python}"
[[ -x "$python" ]] || fail "'$python': expected a Python; CTL_JAX_PYTHON names another"

flags=(--worker=auto)
tasks="${SLURM_NTASKS:-${SLURM_JOB_NUM_NODES:-1}}"
if ((tasks > 1)); then
  flags+=(--group=auto)
elif [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  flags=()
fi

# The number alone may stand for all of an array.
id="$SLURM_JOB_ID"
if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi

# Slurm tells the steps to stop; where it tells this shell too, it waits for them.
trap ':' TERM

say() {
  echo "launch/slurm.sh: job $id: $1"
}

# A field of what Slurm said of the job; empty where it has none.
field() {
  if [[ " $job " =~ [[:space:]]$1=([^[:space:]]*) ]]; then
    echo "${BASH_REMATCH[1]}"
  fi
}

# Whether Slurm has put the job into the queue again by itself: a requeue from outside, preemption.
is_queued() {
  local restarts
  restarts="$(field Restarts)"
  ((${restarts:-0} > ${SLURM_RESTART_COUNT:-0}))
}

# Whether Slurm ends all of the job, not the steps alone, and for no reason of its own: the user's.
is_cancelled() {
  local at
  [[ "$(field JobState)" == COMPLETING && "$(field Reason)" != TimeLimit ]] || return
  at="$(field PreemptTime)"
  # None, or that of a start before this one.
  [[ ! "$at" =~ ^[0-9] || "$at" < "$(field StartTime)" ]]
}

# Puts the job into the queue again, unless its user cancelled it or Slurm does it.
go_on() {
  local pause job
  # The controller may be busy, or start again.
  for pause in 0 5 5 5; do
    sleep "$pause"
    job="$(scontrol --oneliner show job "$id")" || continue
    if is_queued; then
      say 'stopped before its end; Slurm puts it into the queue again'
      return
    elif is_cancelled; then
      say 'cancelled; nothing done is lost, the same sbatch goes on'
      return
    fi
    say 'stopped before its end; into the queue again'
    if scontrol requeue "$id"; then
      return
    fi
  done
  say 'not in the queue again, for scontrol failed; the same sbatch goes on' >&2
  exit 1
}

status=0
# The tasks of a group end together; one that cannot is not waited for long.
srun --kill-on-bad-exit=0 --wait=150 \
  "$python" -m ctl_jax.main "$@" ${flags[@]+"${flags[@]}"} || status=$?

if ((status == preempted || status == terminated)); then
  go_on
fi
exit "$status"
