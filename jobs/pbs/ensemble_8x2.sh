#!/usr/bin/env bash
# The PBS twin of jobs/slurm/ensemble_8x2.sh: same run, same logic, and jobs/slurm/env.sh for what is particular to a site.
# Not run under PBS yet, only with stand-ins for its commands (tests/slurm).
#
#   qsub jobs/pbs/ensemble_8x2.sh                                                  from the folder of the sources
#   qsub -l select=4:ncpus=4:mpiprocs=4 -l walltime=30:00 jobs/pbs/ensemble_8x2.sh
#   qsub -v OPTIONS="--env ALE/Breakout-v5 --frames 4e6" jobs/pbs/ensemble_8x2.sh
#
# PBS gives no warning before the time limit, so the script warns itself; and it lets only operators requeue, so the
# script submits itself again, with RESUME. Open MPI from PyPI starts its daemons through ssh.
#
#PBS -N ensemble_8x2
#PBS -l select=2:ncpus=8:mpiprocs=8
#PBS -l walltime=04:00:00
#PBS -j oe

# shellcheck disable=SC2034,SC2154  # what common.sh reads and sets
cd "$PBS_O_WORKDIR" || exit 2
script=jobs/pbs/ensemble_8x2.sh
options=()
read -ra options <<<"${OPTIONS:-}"

# Not exported: Open MPI would look for Slurm.
SLURM_JOB_ID=${PBS_JOBID%%.*} SLURM_JOB_NAME=$PBS_JOBNAME SLURM_SUBMIT_DIR=$PBS_O_WORKDIR
SLURM_NTASKS=$(wc -l <"$PBS_NODEFILE") SLURM_JOB_NODELIST=$(sort -u "$PBS_NODEFILE" | tr '\n' ' ')
SLURM_RESTART_COUNT=${RESTARTS:-0} LAUNCHER_OPTIONS="--hostfile $PBS_NODEFILE ${LAUNCHER_OPTIONS:-}"
# shellcheck source=jobs/slurm/common.sh
. jobs/slurm/common.sh || exit 2

requeue() {
    local resume=''
    if [ "$SECONDS" -lt "$left" ] && [[ $1 == "stopped by"* ]]; then # not by the warning below, so by qdel
        say "$1; go on with  qsub -v RESUME=$run $script"
    elif [ "$restarts" -ge "$MAX_RESTARTS" ]; then
        say "$1; not submitted again, since MAX_RESTARTS=$MAX_RESTARTS are used up; go on with  qsub -v RESUME=$run $script"
    else
        ! has_checkpoints || resume=RESUME=$run,
        say "$1; submitted again:" \
            "$(qsub -l walltime="$limit" -v "${resume}RESTARTS=$((restarts + 1)),OPTIONS=${OPTIONS:-}" "$script")"
    fi
    exit 75
}

limit=$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = //p')
IFS=: read -r hours minutes seconds <<<"$limit"
left=$((10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds - ${WARNING_S:-120}))
(trap 'kill $!' TERM && { sleep "$left" & } && wait $! && kill -USR1 $$) &
trap 'kill "$warner" 2>/dev/null' EXIT
warner=$!

arm exchange group_ensemble
train --set topology.groups=8 --set topology.learners_per_group=1 --set topology.actors_per_group=1 "${options[@]}"
