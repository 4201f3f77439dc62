#!/usr/bin/env bash
# One learner and ever more actors, for 10 minutes each: frames/s, age of data and waiting at each size.
#
#   jobs/slurm/scaling.sh                               submits one job for each of SIZES; --dry-run prints them
#   SIZES="8 512" jobs/slurm/scaling.sh                 ranks of each job
#   SIZES=64 jobs/slurm/scaling.sh --set topology.learners_per_group=8
#   sbatch --nodes=2 --ntasks=16 jobs/slurm/scaling.sh              one of them
#
# Options of sbatch itself come from its variables: SBATCH_PARTITION=... SBATCH_TIMELIMIT=...
#
#SBATCH --job-name=scaling
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# Slurm runs a copy of this file, so it is Slurm that knows where common.sh is.
here=$(dirname "$0")
[ -e "$here/common.sh" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\([^ ]*\)/.*|\1|p;T;q')
[ -e "$here/common.sh" ] || here=$SLURM_SUBMIT_DIR/$here
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2

: "${SIZES:=4 8 16 32 64 128}"
sizes "$@"
arm impala impala
train --seconds 600 "$@"
