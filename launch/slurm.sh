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
# ends with status 75, and is put into the queue again; it goes on from the workdir.
#
# CTL_JAX_PYTHON names the Python to run; .venv/bin/python where sbatch was called is the default.

set -euo pipefail

readonly preempted=75

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

# Slurm tells the steps to stop; where it tells this shell too, it waits for them.
trap ':' TERM

status=0
# The tasks of a group end together; one that cannot is not waited for long.
srun --kill-on-bad-exit=0 --wait=150 \
  "$python" -m ctl_jax.main "$@" ${flags[@]+"${flags[@]}"} || status=$?

if ((status == preempted)); then
  echo 'launch/slurm.sh: stopped before its end; in the queue again'
  scontrol requeue "$SLURM_JOB_ID" || fail "scontrol requeue $SLURM_JOB_ID: failed; sbatch it again"
fi
exit "$status"
