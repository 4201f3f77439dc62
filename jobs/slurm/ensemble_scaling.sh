#!/usr/bin/env bash
# What more groups are good for: 4 to 64 groups of 1 learner + 1 actor, for an hour each.
#
#   jobs/slurm/ensemble_scaling.sh                      submits one job for each of SIZES; --dry-run prints them
#   SIZES="256 512" jobs/slurm/ensemble_scaling.sh      ranks of each job
#   sbatch --nodes=4 --ntasks=32 jobs/slurm/ensemble_scaling.sh     one of them
#
# Options of sbatch itself come from its variables: SBATCH_PARTITION=... SBATCH_TIMELIMIT=...
#
#SBATCH --job-name=ensemble_scaling
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
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

: "${SIZES:=8 16 32 64 128}"
sizes "$@"
arm everyone group_ensemble
arm pairs group_ensemble --set coupling.topology=random_pairs
train --set topology.learners_per_group=1 --set topology.actors_per_group=1 --seconds 3600 "$@"
