#!/usr/bin/env bash
# Write one page on some runs.
#
#   PAGE=comparison.html sbatch jobs/slurm/report.sh runs/ensemble_8x2-123_*
#
#SBATCH --job-name=report
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out

# Slurm runs a copy of this file, so it is Slurm that knows where common.sh is.
here=$(dirname "$0")
[ -e "$here/common.sh" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\([^ ]*\)/.*|\1|p;T;q')
[ -e "$here/common.sh" ] || here=$SLURM_SUBMIT_DIR/$here
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2

all_runs report --out "${PAGE:-report-${SLURM_JOB_ID:-}.html}" -- "$@"
