#!/usr/bin/env bash
# 8 groups of 1 learner + 1 actor that differ in algorithm, network and learning rate. 16 ranks.
#
#   sbatch jobs/slurm/ensemble_hetero.sh
#   sbatch --array=0-8%3 --output=%x-%A_%a.out jobs/slurm/ensemble_hetero.sh    and groups that are alike, or do not talk
#
#SBATCH --job-name=ensemble_hetero
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
arm hetero ensemble_hetero
arm alike group_ensemble
arm alone ensemble_hetero --set coupling=uncoupled
train --set topology.groups=8 --set topology.learners_per_group=1 --set topology.actors_per_group=1 "$@"
