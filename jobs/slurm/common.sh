# shellcheck shell=bash
# What the job scripts share. They source this file and call
#
#   train RECIPE OPTION...
#
# which runs `python -m hpcddrl run RECIPE OPTION...` on all tasks of the job. Slurm's warning before the time limit is
# handed on as USR1; the run then writes its checkpoints and ends, the job is requeued and goes on from them with
# --resume. A checkpoint holds each group's weights, optimizer and frame count; environments start anew, and budgets in
# seconds count anew in each segment.
#
# For one job, beside what env.sh names:
#   DRY_RUN=1    print the command and start nothing; so does the option --dry-run
#   RESUME=RUN   go on with the run of another job
#
# The job exits with 0: done; 1: failed; 2: bad usage or configuration; 75: stopped before its end.

say() { printf '[job %(%T)T] %s\n' -1 "$*"; }
die() { printf 'jobs/slurm: %s\n' "$*" >&2; exit 2; }

# shellcheck source=jobs/slurm/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || die "env.sh was not read"
set -uo pipefail

train() {
    local option options=() launcher=() environment=() where=() restarts=${SLURM_RESTART_COUNT:-0} run command
    for option; do
        case $option in
            --dry-run) DRY_RUN=1 ;;
            --out | --out=*) die "$option: the job chooses its directory itself; say where with RUNS=..." ;;
            --resume | --resume=*) die "$option: to go on with the run of another job, use RESUME=RUN sbatch ..." ;;
            *) options+=("$option") ;;
        esac
    done
    need_job
    activate
    choose_launcher
    choose_directory
    command=(env "${environment[@]}" "${launcher[@]}" python -m hpcddrl run "${options[@]}" "${where[@]}")
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
        exit 0
    fi
    check_programs
    make_room
    say "$SLURM_NTASKS tasks on ${SLURM_JOB_NODELIST:-?}, restart $restarts: ${command[*]}"
    supervise "${command[@]}"
    conclude $?
}

# Make sure that this is a job; a dry run anywhere else takes its size from the script's header.
need_job() {
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        [ -n "${SLURM_NTASKS:-}" ] || die "the job does not say of how many tasks it is: sbatch --ntasks=N"
        local nodes=${SLURM_JOB_NUM_NODES:-1} most=${SLURM_NTASKS_PER_NODE:-0}
        [ $(((nodes - 1) * most)) -lt "$SLURM_NTASKS" ] ||
            say "$nodes nodes of $most tasks are more than $SLURM_NTASKS tasks fill: lower --ntasks-per-node as well"
    elif [ -n "${DRY_RUN:-}" ]; then
        SLURM_JOB_ID=JOBID SLURM_JOB_NAME=$(header job-name) SLURM_NTASKS=$(header ntasks)
        SLURM_CPUS_PER_TASK=$(header cpus-per-task)
    else
        die "this is no Slurm job: submit it with  sbatch $0  (or look at the command with  $0 --dry-run)"
    fi
}

header() { sed -n "s/^#SBATCH --$1=//p" "$0"; }

activate() {
    [ -n "$VENV" ] || return 0
    [ -e "$VENV/bin/activate" ] || die "VENV=$VENV: no Python environment there; run  make setup, or name one in env.sh"
    # shellcheck source=/dev/null
    . "$VENV/bin/activate"
    VENV=${VIRTUAL_ENV:-$VENV} # a whole path
}

choose_launcher() {
    local cpus=${SLURM_CPUS_PER_TASK:-1}
    # One thread a core that the rank has. sbatch --export=... must not keep these from the ranks.
    environment=("OMP_NUM_THREADS=$cpus" PYTHONUNBUFFERED=1 SLURM_EXPORT_ENV=ALL)
    case $LAUNCHER in
        mpirun)
            launcher=(mpirun -n "$SLURM_NTASKS")
            if [ "$OVERSUBSCRIBE" = yes ]; then
                launcher+=(--map-by slot:oversubscribe)
            elif [ "$cpus" -gt 1 ]; then
                launcher+=(--map-by "slot:pe=$cpus") # else each rank is bound to one core
            fi
            ;;
        srun-pmix | srun-pmi2)
            # The first rank to leave gives the others a minute. If srun killed them at once (--kill-on-bad-exit=1), its
            # exit code would no longer be theirs. Since Slurm 22.05 it does not take the CPUs from sbatch.
            launcher=(srun --mpi="${LAUNCHER#srun-}" --kill-on-bad-exit=0 --wait=60)
            launcher+=(-n "$SLURM_NTASKS" --cpus-per-task="$cpus")
            [ "$OVERSUBSCRIBE" != yes ] || launcher+=(--overcommit --cpu-bind=none)
            # Open MPI from PyPI does not know where it was installed, and has no munge.
            [ -z "$VENV" ] || [ ! -x "$VENV/bin/prterun" ] || environment+=("OPAL_PREFIX=$VENV" PMIX_MCA_psec=native)
            ;;
        mpiexec) launcher=(mpiexec -n "$SLURM_NTASKS") ;;
        *) die "LAUNCHER=$LAUNCHER: not one of mpirun, srun-pmix, srun-pmi2, mpiexec (see env.sh)" ;;
    esac
}

# Look at what would otherwise fail on every rank, or not say why.
check_programs() {
    command -v "${launcher[0]}" >/dev/null ||
        die "LAUNCHER=$LAUNCHER: no ${launcher[0]} on PATH; choose another, or load its module in env.sh"
    python -c 'import hpcddrl' 2>/dev/null ||
        die "no hpcddrl in $(command -v python || echo 'any python on PATH'); run  make setup, or set VENV in env.sh"
    [[ $LAUNCHER == srun-* ]] || return 0
    local plugins
    plugins=$(srun --mpi=list 2>&1 | tr -s '\n\t ' ' ')
    [[ $plugins =~ (^| )${LAUNCHER#srun-}( |$) ]] ||
        die "LAUNCHER=$LAUNCHER: srun has no such plugin, choose another LAUNCHER; $plugins"
}

# Set run, and where: --out for a new one, --resume for one that has checkpoints.
choose_directory() {
    run=${RESUME:-$RUNS/${SLURM_JOB_NAME//\//-}-$SLURM_JOB_ID}
    if [ -n "${RESUME:-}" ] && ! has_checkpoints; then
        die "RESUME=$RESUME: no run with checkpoints of all its groups is there"
    elif [ -e "$run" ] && [ -z "${RESUME:-}" ] && [ "$restarts" = 0 ]; then
        die "$run: exists, but this job starts for the first time; move it away, or go on by  RESUME=$run sbatch ..."
    elif has_checkpoints; then
        where=(--resume "$run")
    else
        where=(--out "$run")
    fi
}

# Does the run have all the checkpoints that --resume asks for?
has_checkpoints() {
    local owners
    [ -e "$run/config.json" ] || return
    owners=$(python -c 'import json, sys; t = json.load(sys.stdin)["topology"]; print(t["servers"] or t["groups"])' \
        <"$run/config.json") || return
    [ "$(find "$run/checkpoints" -name 'version-*.pt' -printf '%h\n' 2>/dev/null | sort -u | wc -l)" -ge "$owners" ]
}

# Put away what an earlier segment left, so that it isn't taken for this one's.
make_room() {
    local segments=("$run"/segments/*/)
    [ -e "$run" ] || return 0
    if [ "${where[0]}" = --out ]; then
        mv "$run" "$run.lost-$restarts" || die "$run: not moved away"
        say "the run before left no checkpoints to go on from: starting anew; it is now $run.lost-$restarts"
    elif [ -e "$run/summary.json" ]; then
        case $(exit_reason) in
            signal*) ;;
            *) [ "$restarts" = 0 ] || { say "$run has ended already ($(exit_reason))"; exit 0; } ;;
        esac
        mv "$run/summary.json" "${segments[-1]}" || die "$run/summary.json: not moved away"
    fi
}

exit_reason() { sed -n 's/^ *"exit_reason": "\(.*\)".*/\1/p' "$run/summary.json" 2>/dev/null; }

# Run a command to its end and return its exit code. Signals to this script are handed on as USR1, the one that every
# launcher gives to its ranks: Open MPI's mpirun would answer TERM with KILL for all of them.
supervise() {
    local pid code again=yes
    "$@" &
    pid=$!
    trap 'again=yes; say "asking the run to stop"; kill -USR1 "$pid" 2>/dev/null' USR1 TERM
    while [ -n "$again" ]; do # a signal ends wait, not the command
        again=
        wait "$pid"
        code=$?
    done
    trap - USR1 TERM
    return "$code"
}

# End the job by what the run has to say. The launcher's exit code counts only when the run left no word: Open MPI's
# mpirun exits with 0 when it loses a node.
conclude() {
    local code=$1 reason
    reason=$(exit_reason)
    case $reason in
        signal*) requeue "stopped by $reason" ;;
        ?*)
            say "done ($reason)"
            exit 0
            ;;
    esac
    case $code in
        1 | 2)
            say "failed, exit code $code"
            exit "$code"
            ;;
        *) requeue "ended without a summary, exit code $code: stopped while it started, or lost a rank or a node" ;;
    esac
}

requeue() {
    local state go_on="go on with  RESUME=$run sbatch ..."
    # A job that Slurm is ending would come back to life: cancelled ones must not, preempted ones do by themselves.
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
    if [ "$state" != RUNNING ]; then
        say "$1; not requeued from here, since the job is ${state:-gone}; if it does not come back, $go_on"
    elif [ "$restarts" -ge "$MAX_RESTARTS" ]; then
        say "$1; not requeued, since MAX_RESTARTS=$MAX_RESTARTS are used up; $go_on"
    else
        say "$1; requeue"
        scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until Slurm ends this script
        say "not requeued; $go_on"
    fi
    exit 75
}
