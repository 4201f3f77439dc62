#!/usr/bin/env bash
# Run one rank's program, and keep what it prints in a file of its own as well:  rank.sh FOLDER PROGRAM...
# common.sh puts this between launcher and program where RANK_LOGS=yes.
folder=$1
shift
number=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${PMIX_RANK:-${SLURM_PROCID:-0}}}}
mkdir -p "$folder" || exit
# The copier must outlive the signals that ask ranks to stop.
exec > >(trap '' USR1 TERM INT && exec tee -a "$folder/rank-$(printf %04d "$number").log") 2>&1
exec "$@"
