#!/usr/bin/env bash
# The proposal's experiment: 8 groups of 1 learner + 1 actor on Atari Pong, 16 ranks in all.
#
#   sbatch jobs/slurm/ensemble_8x2.sh                                        as it stands
#   sbatch jobs/slurm/ensemble_8x2.sh --env ALE/Breakout-v5 --frames 4e6     with any options of `hpcddrl run`
#   sbatch --nodes=4 --ntasks-per-node=4 --time=30 jobs/slurm/ensemble_8x2.sh    on other resources
#   sbatch --array=0-5%2 --output=%x-%A_%a.out jobs/slurm/ensemble_8x2.sh    both arms, three seeds, two jobs at a time
#   jobs/slurm/ensemble_8x2.sh --dry-run                                     print the job, start nothing
#
# --ntasks-per-node spreads the ranks evenly, 15 and 1 are possible without; with other nodes give it again.
#
#SBATCH --job-name=ensemble_8x2
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
train --set topology.groups=8 --set topology.learners_per_group=1 --set topology.actors_per_group=1 "$@"
