#!/usr/bin/env bash
# Play the newest checkpoint of every group of some runs, without learning.
#
#   sbatch jobs/slurm/evaluate.sh runs/ensemble_8x2-123 runs/ensemble_8x2-124
#   EPISODES=100 sbatch --array=0-5 jobs/slurm/evaluate.sh runs/ensemble_8x2-123_*     each in an element of an array
#
#SBATCH --job-name=evaluate
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.out

# Slurm runs a copy of this file, so it is Slurm that knows where common.sh is.
here=$(dirname "$0")
[ -e "$here/common.sh" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\([^ ]*\)/.*|\1|p;T;q')
[ -e "$here/common.sh" ] || here=$SLURM_SUBMIT_DIR/$here
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2

each_run evaluate --episodes "${EPISODES:-30}" -- "$@"
