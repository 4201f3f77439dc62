#!/usr/bin/env bash
# 4 groups of 2 learners + 2 actors: Horovod averages gradients inside a group, models travel between groups. 16 ranks.
#
#   sbatch jobs/slurm/ensemble_4x4.sh
#   sbatch --array=0-5%2 --output=%x-%A_%a.out jobs/slurm/ensemble_4x4.sh    with exchange and without, three seeds
#
#SBATCH --job-name=ensemble_4x4
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
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

: "${SEEDS=1 2 3}"
arm exchange group_ensemble
arm alone group_ensemble --set coupling=uncoupled
train --set topology.groups=4 --set topology.learners_per_group=2 --set topology.actors_per_group=2 "$@"
