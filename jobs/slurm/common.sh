# shellcheck shell=bash
# What the job scripts share. They source this file and say which runs there are:
#
#   arm NAME RECIPE OPTION...   one way to run the experiment; call it for each
#   train OPTION...             run `python -m hpcddrl run RECIPE OPTION...` of the job's arm, game and seed on all tasks
#
# Runs are numbered, arms fastest, then games (GAMES="ALE/Pong-v5 ..."), then seeds (SEEDS="1 2 3"). An element of a job
# array is the run of its number, a job that is no array is run 0.
#
# Slurm's warning before the time limit is handed on as USR1; the run then writes its checkpoints and ends, the job is
# requeued and goes on from them with --resume. A checkpoint holds all but running episodes;
# environments start anew, and budgets in seconds count anew in each segment.
#
# For one job, beside what env.sh names:
#   DRY_RUN=1    print the header and the command of every run, start nothing; so does the option --dry-run
#   RESUME=RUN   go on with the run of another job; in an array with RUN_<number>
#
# The job exits with 0: done; 1: failed; 2: bad usage or configuration; 75: stopped before its end.

say() { printf '[job %(%T)T] %s\n' -1 "$*"; }
die() { printf 'jobs/slurm: %s\n' "$*" >&2; exit 2; }

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=jobs/slurm/env.sh
. "$scripts/env.sh" || die "env.sh was not read"
set -uo pipefail

restarts=${SLURM_RESTART_COUNT:-0}
arm_names=() arm_recipes=() arm_options=()

arm() {
    arm_names+=("$1") arm_recipes+=("$2")
    shift 2
    arm_options+=("$(printf '%s\n' "$@")")
}

train() {
    local run_options=() launcher=() environment=() where=() run_number recipe job run go_on command ranks option
    for option; do
        case $option in
            --dry-run) DRY_RUN=1 ;;
            --out | --out=*) die "$option: the job chooses its directory itself; say where with RUNS=..." ;;
            --resume | --resume=*) die "$option: to go on with the run of another job, use RESUME=RUN sbatch ..." ;;
        esac
    done
    need_job
    activate
    count_ranks
    if [ -n "${DRY_RUN:-}" ]; then
        print_job "$@"
        exit 0
    fi
    choose_run "${SLURM_ARRAY_TASK_ID:-0}" "$@"
    choose_directory
    choose_launcher
    check_programs
    make_room
    say "$ranks tasks on ${SLURM_JOB_NODELIST:-?}, restart $restarts: $(label): ${command[*]}"
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
        [ -z "$(header ntasks 1)" ] || SLURM_HET_SIZE=2
    else
        die "this is no Slurm job: submit it with  sbatch $0  (or look at the command with  $0 --dry-run)"
    fi
}

# Print the value of an option in the script's header, in a component of a heterogeneous job (from 0).
header() {
    local line component=0
    while read -r line; do
        case $line in
            "#SBATCH hetjob") component=$((component + 1)) ;;
            "#SBATCH --$1="*) [ "$component" != "${2:-0}" ] || echo "${line#*=}" ;;
        esac
    done <"$0"
}

# Print what a component of a heterogeneous job has of this, from Slurm or, in a dry run, from the header.
of_component() { # NTASKS component
    local name=SLURM_$1_HET_GROUP_$2 option=${1//_/-}
    echo "${!name:-$(header "${option,,}" "$2")}"
}

activate() {
    [ -n "$VENV" ] || return 0
    [ -e "$VENV/bin/activate" ] || die "VENV=$VENV: no Python environment there; run  make setup, or name one in env.sh"
    # shellcheck source=/dev/null
    . "$VENV/bin/activate"
    VENV=${VIRTUAL_ENV:-$VENV} # a whole path
}

count_ranks() {
    local component
    ranks=$SLURM_NTASKS
    [ -n "${SLURM_HET_SIZE:-}" ] || return 0
    ranks=0
    for ((component = 0; component < SLURM_HET_SIZE; component++)); do
        ranks=$((ranks + $(of_component NTASKS "$component")))
    done
}

# Print the header, and the command of each run that the header asks for (in a job: of its own run).
print_job() {
    local line number numbers
    while read -r line; do
        [[ $line != "#SBATCH "* ]] || echo "$line"
    done <"$0"
    count_runs
    [ "$runs" = 1 ] || echo "# $runs runs, ${#arm_names[@]} arms x $games games x $seeds seeds:" \
        "sbatch --array=0-$((runs - 1))%4 starts them all, 4 at a time"
    numbers=("${SLURM_ARRAY_TASK_ID:-0}")
    [ -z "$(header array)" ] || [ -n "${SLURM_ARRAY_TASK_ID:-}" ] || mapfile -t numbers < <(seq 0 $((runs - 1)))
    for number in "${numbers[@]}"; do
        choose_run "$number" "$@"
        choose_directory
        choose_launcher
        echo "# $(label)"
        printf '%q ' "${command[@]}"
        echo
    done
}

count_runs() {
    local words
    read -ra words <<<"${GAMES:-}"
    games=$((${#words[@]} > 0 ? ${#words[@]} : 1))
    read -ra words <<<"${SEEDS:-}"
    seeds=$((${#words[@]} > 0 ? ${#words[@]} : 1))
    runs=$((${#arm_names[@]} * games * seeds))
}

# Set recipe and run_options for the run of this number; what the user says comes last and wins.
choose_run() {
    local number=$1 games seeds runs game_list seed_list arm rest own
    shift
    count_runs
    [ "$number" -lt "$runs" ] ||
        die "array element $number: there are $runs runs (${#arm_names[@]} arms, $games games, $seeds seeds)"
    read -ra game_list <<<"${GAMES:-}"
    read -ra seed_list <<<"${SEEDS:-}"
    run_number=$number arm=$((number % ${#arm_names[@]})) rest=$((number / ${#arm_names[@]}))
    recipe=${arm_recipes[arm]} run_options=()
    mapfile -t own <<<"${arm_options[arm]}"
    [ -z "${own[*]}" ] || run_options+=("${own[@]}")
    [ ${#game_list[@]} = 0 ] || run_options+=(--env "${game_list[rest % games]}")
    [ ${#seed_list[@]} = 0 ] || run_options+=(--seed "${seed_list[rest / games]}")
    for own; do
        case $own in
            --dry-run) ;;
            --env | --env=*) [ "$games" = 1 ] || die "$own: each run has its game; choose them with GAMES=\"... ...\"" ;;&
            --seed | --seed=*) [ "$seeds" = 1 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ] ||
                die "$own: each run of an array has its seed; choose them with SEEDS=\"... ...\"" ;;&
            *) run_options+=("$own") ;;
        esac
    done
}

label() { echo "run $run_number, arm ${arm_names[run_number % ${#arm_names[@]}]}"; }

# Set job, Slurm's name for this one; run; and where: --out for a new run, --resume for one that has checkpoints.
choose_directory() {
    local element=''
    if [ -n "${SLURM_ARRAY_TASK_ID:-}" ] || { [ "$SLURM_JOB_ID" = JOBID ] && [ -n "$(header array)" ]; }; then
        element=_$run_number
    fi
    job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}$element # the first element has the array's number as its own, too
    run=${RESUME:+$RESUME$element}
    run=${run:-$RUNS/${SLURM_JOB_NAME//\//-}-$job}
    go_on="go on with  RESUME=${run%"$element"} sbatch ${element:+--array=$run_number }..."
    if [ -n "${RESUME:-}" ] && ! has_checkpoints; then
        die "RESUME=$RESUME: no run with a checkpoint to go on from is at $run"
    elif [ -e "$run" ] && [ -z "${RESUME:-}" ] && [ "$restarts" = 0 ]; then
        die "$run: exists, but this job starts for the first time; move it away, or $go_on"
    elif has_checkpoints; then
        where=(--resume "$run")
    else
        where=(--out "$run")
    fi
}

# Has the run a checkpoint of the whole job, from which --resume goes on?
has_checkpoints() { [ -e "$run/config.json" ] && compgen -G "$run/restart/*/DONE" >/dev/null; }

# Set command: the launcher, what the ranks need in their environment, the program.
choose_launcher() {
    local cpus=${SLURM_CPUS_PER_TASK:-1} program component more
    program=(python -m hpcddrl run "$recipe" "${run_options[@]}" "${where[@]}")
    [ "$RANK_LOGS" != yes ] || program=(bash "$scripts/rank.sh" "$run.ranks" "${program[@]}")
    # sbatch --export=... must not keep these from the ranks.
    environment=(PYTHONUNBUFFERED=1 SLURM_EXPORT_ENV=ALL)
    case $LAUNCHER in
        mpirun)
            launcher=(mpirun -n "$ranks")
            if [ "$OVERSUBSCRIBE" = yes ]; then
                launcher+=(--map-by slot:oversubscribe)
            elif [ "$cpus" -gt 1 ]; then
                launcher+=(--map-by "slot:pe=$cpus") # else each rank is bound to one core
            fi
            ! wants_ulfm || ! has_ulfm || launcher+=(--with-ft ulfm)
            ;;
        srun-pmix | srun-pmi2)
            # The first rank to leave gives the others a minute. If srun killed them at once (--kill-on-bad-exit=1), its
            # exit code would no longer be theirs. Since Slurm 22.05 it does not take the CPUs from sbatch.
            launcher=(srun --mpi="${LAUNCHER#srun-}" --kill-on-bad-exit=0 --wait=60)
            [ "$OVERSUBSCRIBE" != yes ] || launcher+=(--overcommit --cpu-bind=none)
            # Open MPI from PyPI does not know where it was installed, and has no munge.
            [ -z "$VENV" ] || [ ! -x "$VENV/bin/prterun" ] || environment+=("OPAL_PREFIX=$VENV" PMIX_MCA_psec=native)
            ;;
        mpiexec) launcher=(mpiexec -n "$ranks") ;;
        *) die "LAUNCHER=$LAUNCHER: not one of mpirun, srun-pmix, srun-pmi2, mpiexec (see env.sh)" ;;
    esac
    read -ra more <<<"$LAUNCHER_OPTIONS"
    launcher+=("${more[@]}")
    if [ -z "${SLURM_HET_SIZE:-}" ]; then
        # One thread a core that the rank has.
        [[ $LAUNCHER != srun-* ]] || launcher+=(-n "$ranks" --cpus-per-task="$cpus")
        command=(env "OMP_NUM_THREADS=$cpus" "${environment[@]}" "${launcher[@]}" "${program[@]}")
        return
    fi
    [[ $LAUNCHER == srun-* ]] || die "LAUNCHER=$LAUNCHER: starts ranks on the first component of a heterogeneous job" \
        "alone; choose srun-pmix or srun-pmi2"
    command=(env "${environment[@]}" "${launcher[@]}")
    for ((component = 0; component < SLURM_HET_SIZE; component++)); do
        cpus=$(of_component CPUS_PER_TASK "$component")
        [ "$component" = 0 ] || command+=(:)
        command+=(--het-group="$component" -n "$(of_component NTASKS "$component")" --cpus-per-task="${cpus:-1}")
        command+=(env "OMP_NUM_THREADS=${cpus:-1}" "${program[@]}")
    done
}

wants_ulfm() { [ "$ULFM" = yes ] || { [ "$ULFM" = auto ] && ! has_fast_network; }; }

has_fast_network() {
    local folder
    for folder in $FAST_NETWORKS; do
        ! compgen -G "$folder/*" >/dev/null || return 0
    done
    return 1
}

has_ulfm() { [[ $(ompi_info 2>/dev/null) == *"FT MPI support: yes"* ]]; }

# Look at what would otherwise fail on every rank, or not say why.
check_programs() {
    command -v "${launcher[0]}" >/dev/null ||
        die "LAUNCHER=$LAUNCHER: no ${launcher[0]} on PATH; choose another, or load its module in env.sh"
    python -c 'import hpcddrl' 2>/dev/null ||
        die "no hpcddrl in $(command -v python || echo 'any python on PATH'); run  make setup, or set VENV in env.sh"
    check_layout
    [ "$LAUNCHER" != mpirun ] || [ "$ULFM" != yes ] || has_ulfm ||
        die "ULFM=yes: this mpirun is not Open MPI 5 with fault tolerance; say ULFM=auto or no"
    [[ $LAUNCHER == srun-* ]] || return 0
    local plugins
    plugins=$(srun --mpi=list 2>&1 | tr -s '\n\t ' ' ')
    [[ $plugins =~ (^| )${LAUNCHER#srun-}( |$) ]] ||
        die "LAUNCHER=$LAUNCHER: srun has no such plugin, choose another LAUNCHER; $plugins"
}

# Let the program say whether the recipe can be laid out on as many ranks as the job has.
check_layout() {
    local option before='' settings=()
    for option in "${run_options[@]}"; do
        case $before/$option in
            --set/*) settings+=(--set "$option") ;;
            */--set=*) settings+=("$option") ;;
        esac
        before=$option
    done
    python -m hpcddrl ranks "$recipe" "${settings[@]}" --check "$ranks" || exit 2
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
            account
            say "done ($reason)"
            exit 0
            ;;
    esac
    case $code in
        1 | 2)
            account
            say "failed, exit code $code"
            exit "$code"
            ;;
        *) requeue "ended without a summary, exit code $code: stopped while it started, or lost a rank or a node" ;;
    esac
}

# Say how well the job used its processors: by the run's own files, and by Slurm where it keeps accounts.
account() {
    [ ! -e "$run/run.h5" ] || python -m hpcddrl efficiency "$run" --cpus "$(allocated_cpus)"
    ! command -v sacct >/dev/null || sacct --jobs="$job" \
        --format=JobID%20,State,Elapsed,AllocCPUS,TotalCPU,MaxRSS 2>/dev/null || true # the batch step is still running
}

allocated_cpus() {
    local counts="${SLURM_JOB_CPUS_PER_NODE:-}" part component total=0
    for ((component = 1; component < ${SLURM_HET_SIZE:-0}; component++)); do
        counts+=,$(of_component JOB_CPUS_PER_NODE "$component")
    done
    for part in ${counts//,/ }; do # 8(x2),4
        [[ $part =~ ^([0-9]+)(\(x([0-9]+)\))?$ ]] && total=$((total + BASH_REMATCH[1] * ${BASH_REMATCH[3]:-1}))
    done
    echo "$((total > 0 ? total : ranks))"
}

requeue() {
    local state
    # A job that Slurm is ending would come back to life: cancelled ones must not, preempted ones do by themselves.
    for _ in 1 2 3; do # a busy controller may not answer at once
        state=$(squeue --noheader --jobs="$job" --format=%T) && break
        sleep 5
    done
    state=${state%%$'\n'*} # a heterogeneous job has a line for each component
    if [ "$state" != RUNNING ]; then
        say "$1; not requeued from here, since the job is ${state:-gone}; if it does not come back, $go_on"
    elif [ "$restarts" -ge "$MAX_RESTARTS" ]; then
        say "$1; not requeued, since MAX_RESTARTS=$MAX_RESTARTS are used up; $go_on"
    else
        say "$1; requeue"
        scontrol requeue "$job" && sleep 60 # until Slurm ends this script
        say "not requeued; $go_on"
    fi
    exit 75
}

# Outside a job, submit the script once for each number of ranks in SIZES, on as few nodes as the header's
# --ntasks-per-node allows, and end. In a job this does nothing.
sizes() {
    local count most nodes option submit options=()
    [ -z "${SLURM_JOB_ID:-}" ] || return 0
    most=$(header ntasks-per-node)
    for option; do
        if [ "$option" = --dry-run ]; then DRY_RUN=1; else options+=("$option"); fi
    done
    for count in $SIZES; do
        nodes=$(((count + most - 1) / most))
        submit=(sbatch --nodes="$nodes" --ntasks="$count" --ntasks-per-node=$(((count + nodes - 1) / nodes)) "$0")
        submit+=("${options[@]}")
        if [ -n "${DRY_RUN:-}" ]; then
            printf '# '
            printf '%q ' "${submit[@]}"
            echo
        else
            "${submit[@]}" || exit
        fi
    done
    [ -n "${DRY_RUN:-}" ] || exit 0
}

# Run `python -m hpcddrl COMMAND` on each RUN, in an array on those whose names end in the element's number.
each_run() { # COMMAND OPTION... -- RUN...
    local words=() runs=() run failed=0
    split_words "$@"
    for run in "${runs[@]}"; do
        [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || [[ $run == *_"$SLURM_ARRAY_TASK_ID" ]] || continue
        python -m hpcddrl "${words[@]}" "$run" || failed=1
    done
    exit "$failed"
}

# Run it once on all that are there.
all_runs() { # COMMAND OPTION... -- RUN...
    local words=() runs=() run there=()
    split_words "$@"
    for run in "${runs[@]}"; do
        if [ -e "$run/config.json" ]; then there+=("$run"); else say "$run: not there"; fi
    done
    [ ${#there[@]} -gt 0 ] || die "none of these runs is there"
    python -m hpcddrl "${words[@]}" "${there[@]}"
}

split_words() {
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    [ $# -gt 0 ] || die "name the directories of runs:  sbatch $0 runs/..."
    runs=("$@")
    activate
}
