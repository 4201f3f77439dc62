#!/usr/bin/env bash
# Print the path of a Horovod wheel for the active environment, built here unless the cache has it.
#
# Horovod's last release is source only, and asks CMake for C++14 where torch's headers need C++17. The compiler
# takes the last -std it is given, so a wrapper that adds one builds the release as it is.
set -euo pipefail

release=horovod==0.28.1
log=$VIRTUAL_ENV/horovod-build.log

export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_MPI=1
export HOROVOD_WITHOUT_GLOO=${HOROVOD_WITHOUT_GLOO-1} HOROVOD_CPU_OPERATIONS=${HOROVOD_CPU_OPERATIONS-MPI}

# What the binary depends on: the readable part of the name first, everything in the hash.
key=$(SCRIPT=$0 MPI4PY_RC_INITIALIZE=0 python - <<'P'
import hashlib, os, platform, re, shutil, subprocess, sys, sysconfig
from importlib.metadata import version
from pathlib import Path

from mpi4py import MPI

compiler = shutil.which("mpicxx") or sys.exit("build_horovod: no mpicxx on PATH")
kind = "wheel" if Path(compiler).is_relative_to(sys.prefix) else "system"
library = MPI.Get_library_version()
name = re.sub(r"[^\w.]+", "", re.split("[,\n]", library)[0])
soabi = sysconfig.get_config_var("SOABI")
parts = [Path(os.environ["SCRIPT"]).read_text(), soabi, *platform.libc_ver()]
parts += [version("torch"), kind, library, os.environ.get("CXX", "")]
# With a CUDA build of torch, Horovod's is for CUDA too where there is a toolkit.
parts += [shutil.which("nvcc") or "", os.environ.get("CUDA_HOME", "")]
parts += sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("HOROVOD_"))
if kind == "system":
    parts += [compiler, subprocess.run([compiler, "-show"], capture_output=True, text=True).stdout]
digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
print(f"py{sysconfig.get_python_version()}-torch{version('torch')}-{kind}-{name}-{digest}")
P
)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hpcddrl/wheels
if ls "$cache/$key"/horovod-*.whl 2>/dev/null; then exit 0; fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/.building-XXXXXX")
trap 'rm -rf "$work"' EXIT

# $ORIGIN/../../../.. is the lib/ of whichever environment the wheel is installed in, where Open MPI's wheel puts
# libmpi; the path that CMake records is that of the environment it was built in. -g0: torch's headers make 10 MB of
# debug symbols that nobody reads.
cat >"$work/c++17" <<E2
#!/bin/sh
exec ${CXX:-g++} '-Wl,-rpath,\$ORIGIN/../../../..' "\$@" -std=gnu++17 -g0
E2
chmod +x "$work/c++17"

# A compiler of torch's headers takes over a GB, and a login node is shared: eight at most.
jobs=${JOBS:-$(($(nproc) < 8 ? $(nproc) : 8))}
# No cache and no ready-made wheel: pip does not know one torch or MPI from another.
if ! CXX=$work/c++17 MAKEFLAGS=-j$jobs python -m pip --disable-pip-version-check wheel --verbose --no-cache-dir \
    --no-build-isolation --no-deps --no-binary horovod --wheel-dir "$work/wheel" "$release" >"$log" 2>&1; then
    { grep -m 2 -A 3 -iE '(^|[^a-z_-])error( at|:)' "$log" || tail -n 5 "$log"; } | cut -c 1-300 >&2
    echo "build_horovod: $release was not built; the whole log is $log" >&2
    exit 1
fi
# One rename, so that the cache never holds half a wheel; whoever comes second keeps the first one's.
mv -T "$work/wheel" "$cache/$key" 2>/dev/null || true
ls "$cache/$key"/horovod-*.whl
