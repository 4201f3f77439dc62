#!/usr/bin/env bash
# Learners and actors on nodes of different kinds, as one heterogeneous job: 2 learners with many CPUs, 14 actors with
# one each. The learners' node may have GPUs: they take those that Slurm gives them, in turn.
#
#   LAUNCHER=srun-pmix sbatch jobs/slurm/learners_and_actors.sh
#   LAUNCHER=srun-pmix sbatch --partition=fat : --partition=thin jobs/slurm/learners_and_actors.sh
#   LAUNCHER=srun-pmix sbatch --partition=gpu --gpus-per-node=2 : --partition=cpu jobs/slurm/learners_and_actors.sh
#
# Ranks count through the components in order, and in a group learners come first; so this is for one group, and
# mpirun, which sees the first component alone, cannot start it.
#
#SBATCH --job-name=learners_and_actors
#SBATCH --nodes=1
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#SBATCH hetjob
#SBATCH --nodes=2
#SBATCH --ntasks=14
#SBATCH --ntasks-per-node=7
#SBATCH --cpus-per-task=1

# Slurm runs a copy of this file, so it is Slurm that knows where common.sh is.
here=$(dirname "$0")
[ -e "$here/common.sh" ] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\([^ ]*\)/.*|\1|p;T;q')
[ -e "$here/common.sh" ] || here=$SLURM_SUBMIT_DIR/$here
# shellcheck source=jobs/slurm/common.sh
. "$here/common.sh" || exit 2

arm impala impala
train --set topology.learners_per_group=2 "$@"
