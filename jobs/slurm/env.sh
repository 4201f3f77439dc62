# shellcheck shell=bash disable=SC2034  # common.sh reads what is set here
# Everything that is particular to one cluster; the other files here need no change.
#
# Each value may also be given for one job:  LAUNCHER=srun-pmix sbatch jobs/slurm/ensemble_8x2.sh

# --- Modules: only where the program was set up with `make setup MPI=system`, and then the same as at that time.
# module purge
# module load python/3.11 openmpi/5.0

# --- Python: the environment that `make setup` makes. Empty: the python that the modules above put on PATH.
: "${VENV=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv}"

# --- Launcher: what starts the ranks on the job's nodes.
#   mpirun     Open MPI's; it starts its daemons through Slurm and needs nothing of the site
#   srun-pmix  Open MPI under srun, where `srun --mpi=list` names pmix: ranks are accounted and bound by Slurm
#   srun-pmi2  MPICH and its relatives (Cray, Intel, MVAPICH) under srun
#   mpiexec    their own launcher
: "${LAUNCHER:=mpirun}"

# --- More words for the launcher, such as --cpu-bind=cores or --mca btl ^openib.
: "${LAUNCHER_OPTIONS:=}"

# --- Oversubscription: yes lets ranks outnumber the cores, and binds none of them. For trying things out: `make
# setup` has already allowed it to mpirun on a machine of few cores.
: "${OVERSUBSCRIBE:=no}"

# --- Dead ranks: yes gives mpirun --with-ft ulfm (Open MPI 5), so that it does not end the job with the first rank that
# dies but leaves that to the program, which goes on without it where it can. Open MPI then uses no UCX and no libfabric,
# so auto does it where this mpirun has it and the job's first node has none of the networks that need them.
: "${ULFM:=auto}"
: "${FAST_NETWORKS=/sys/class/infiniband /sys/class/cxi}"

# --- Logs: yes also writes what each rank prints to <run>.ranks/rank-<number>.log; many files on many ranks.
: "${RANK_LOGS:=no}"

# --- Runs: <job name>-<job id> is made in here, <job name>-<array's id>_<number> in an array. All nodes must see it under
# this name; a parallel file system is right (RUNS=$SCRATCH/hpcddrl), a node's own disk is not.
: "${RUNS:=${SLURM_SUBMIT_DIR:-$PWD}/runs}"

# --- Scratch: Open MPI's session files. A node's own disk is right here.
# export TMPDIR=${SLURM_TMPDIR:-/tmp}

# --- Restarts: how often one job may be requeued, whatever for (time limit, lost node, preemption).
: "${MAX_RESTARTS:=10}"

# --- Account and partition: sbatch reads them before any script runs. Put this into ~/.bashrc, or source this file
# before sbatch, or name them each time (sbatch --account=... --partition=...).
# export SBATCH_ACCOUNT=my_project SBATCH_PARTITION=cpu
