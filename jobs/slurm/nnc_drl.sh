#!/usr/bin/env bash
# Acting with a compressed network: the student acts for the teacher, beside teacher and student alone. 16 ranks, one of
# which acts for all others.
#
#   sbatch jobs/slurm/nnc_drl.sh                                    three arms, five seeds, an hour each
#   GAMES="ALE/Pong-v5 ALE/Breakout-v5" sbatch --array=0-29%4 jobs/slurm/nnc_drl.sh
#   sbatch --array=0-2 jobs/slurm/nnc_drl.sh                        one seed
#
#SBATCH --job-name=nnc_drl
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --array=0-14%4
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
arm nnc nnc_ga3c
arm teacher nnc_ga3c --set compression=uncompressed
arm student nnc_ga3c --set compression=uncompressed --set network.width=0.5
train --seconds 3600 "$@"
