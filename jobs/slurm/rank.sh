#!/usr/bin/env bash
# Run one rank's program, and keep what it prints in a file of its own as well:  rank.sh FOLDER PROGRAM...
# common.sh puts this between launcher and program where RANK_LOGS=yes.
folder=$1
shift
number=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${PMIX_RANK:-${SLURM_PROCID:-0}}}}
mkdir -p "$folder" || exit
trap '' USR1 TERM INT # which ask ranks to stop: the copier must outlive them
exec > >(exec tee -a "$folder/rank-$(printf %04d "$number").log") 2>&1
trap - USR1 TERM INT
exec "$@"
