#!/usr/bin/env bash
# Training in stages: a server and 15 workers with every help, with one replay for all of them, without each help, and
# without any. The arm `none` is told its stages and corrects by V-trace too.
#
#   sbatch jobs/slurm/staged_ablation.sh                            six arms, five seeds, an hour each
#   GAMES="ALE/Pong-v5 ALE/Breakout-v5" sbatch --array=0-59%4 jobs/slurm/staged_ablation.sh
#   sbatch --array=0-5 jobs/slurm/staged_ablation.sh                one seed
#
#SBATCH --job-name=staged_ablation
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --array=0-29%4
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out

# Slurm runs a copy of this file, so it is Slurm that knows where common.sh is.
here=$(dirname "$0")
[ -e "$here/common.sh" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\([^ ]*\)/.*|\1|p;T;q')
[ -e "$here/common.sh" ] || here=$SLURM_SUBMIT_DIR/$here
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2

: "${SEEDS=1 2 3 4 5}"
arm all staged
arm central staged --set stages.middle.held_by=server
arm no-early staged --set stages.early=none
arm no-middle staged --set stages.middle=none
arm no-late staged --set stages.late=none
arm none staged --set stages.early=none --set stages.middle=none --set stages.late=none
train --seconds 3600 "$@"
