#!/usr/bin/env bash
# Every framework on the same game with the same network and ranks, from three seeds, for an hour each.
#
#   sbatch jobs/slurm/frameworks.sh
#   GAMES="ALE/Pong-v5 ALE/Breakout-v5" sbatch --array=0-65%8 jobs/slurm/frameworks.sh
#   sbatch --array=0-10 jobs/slurm/frameworks.sh        one seed
#
#SBATCH --job-name=frameworks
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --array=0-32%4
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

: "${SEEDS=1 2 3}"
for recipe in group_ensemble dqn gorila ddql a3c ga3c paac elf impala apex ppo; do arm "$recipe" "$recipe"; done
train --set network.torso=nips --seconds 3600 "$@"
