#!/usr/bin/env bash
# A real Slurm on this machine, for tests: controller, nodes and munge, all of its files in one folder.
#
#   tests/slurm/cluster.sh up [NODES [CPUS]]   start it (3 nodes of 8), wait until it is idle, print SLURM_CONF=...
#   tests/slurm/cluster.sh down                end it with all its jobs, and leave nothing behind
#   tests/slurm/cluster.sh crash NODE          end everything on a node at once, as a power cut does
#   tests/slurm/cluster.sh revive NODE         switch it on again
#
# Root alone can do it; no systemd, cgroups or containers. Each node has its own network (10.178.0.11, .12, ...), host
# name, processes and shared memory, so that Open MPI sees several machines. Where namespaces are not allowed (or by
# ISOLATED=no) there is one node, this machine. CPUs are only claimed, so 3 × 8 of them come up on two cores. Nothing outside of $CLUSTER is
# written. Debian, Ubuntu: apt-get install slurmctld slurmd slurm-client munge libpmix-dev iproute2
#
# Exit codes: 0 done; 1 failed, with the last words of the log; 3 not possible on this machine, and why.
set -u
export PATH=$PATH:/usr/sbin:/sbin
CLUSTER=${CLUSTER:-/run/hpcddrl-slurm}
BRIDGE=hpcslurm NET=10.178.0 CONTROLLER_PORT=16817 NODE_PORT=16818

fail() { printf 'cluster.sh: %s\n' "$1" >&2; exit "${2:-1}"; }
last_words() { fail "$1: $(tail -n 3 "$CLUSTER/log/$2" 2>/dev/null)"; }

need() {
    [ "$(id -u)" = 0 ] || fail "only root can start slurmd" 3
    local program
    for program in slurmctld slurmd sbatch munged munge ip unshare nsenter; do
        command -v "$program" >/dev/null || fail "no $program on PATH; see the packages in $0" 3
    done
}

# Is a process number in a file that of a process of this cluster?
alive() { [ -e "$CLUSTER/$1.pid" ] && grep -qsF "$CLUSTER" "/proc/$(<"$CLUSTER/$1.pid")/cmdline"; }

stop() {
    alive "$1" || return 0
    local pid
    pid=$(<"$CLUSTER/$1.pid")
    kill -"${2:-TERM}" "$pid"
    for _ in {1..100}; do alive "$1" || break; sleep 0.1; done
    if alive "$1"; then kill -KILL "$pid"; fi
    rm -f "$CLUSTER/$1.pid"
}

isolated() {
    [ "${ISOLATED:-}" != no ] && unshare --net --uts --ipc --pid --mount --fork --mount-proc true 2>/dev/null &&
        ip link add "${BRIDGE}-try" type bridge 2>/dev/null && ip link del "${BRIDGE}-try"
}

configure() { # nodes cpus
    local node address=127.0.0.1 hostname
    hostname=$(hostname)
    cat <<END
ClusterName=hpcddrl
SlurmctldHost=$hostname($([ "$isolation" = no ] && echo 127.0.0.1 || echo "$NET.1"))
SlurmctldPort=$CONTROLLER_PORT
SlurmdPort=$NODE_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as its old credential is valid: 2 minutes, if nothing is said.
AuthInfo=socket=$CLUSTER/munge/socket,cred_expire=5
StateSaveLocation=$CLUSTER/controller
SlurmctldPidFile=$CLUSTER/controller.pid
SlurmctldLogFile=$CLUSTER/log/controller
SlurmdSpoolDir=$CLUSTER/spool.%n
SlurmdPidFile=$CLUSTER/slurmd.%n.pid
SlurmdLogFile=$CLUSTER/log/slurmd.%n
# The PMIx plugin names a folder by job and step alone: nodes that share /tmp need one each.
TmpFS=$CLUSTER/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
# Believe the CPUs below, whatever the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
# A busy machine answers late, and that is no failure.
MessageTimeout=60
# Failures shall show within seconds.
SlurmdTimeout=10
KillWait=5
JobRequeue=1
MinJobAge=7200
END
    for node in $(seq "$1"); do
        [ "$isolation" = no ] || { address=$NET.$((10 + node)); hostname=n$node; }
        echo "NodeName=n$node NodeHostname=$hostname NodeAddr=$address CPUs=$2 RealMemory=65536"
    done
    echo "PartitionName=batch Nodes=ALL Default=YES DefaultTime=60 PriorityTier=10 PreemptMode=OFF"
    echo "PartitionName=scavenge Nodes=ALL DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE"
}

start_munge() {
    install -d -m 755 "$CLUSTER/munge"
    install -m 600 /dev/null "$CLUSTER/munge/key"
    head -c 1024 /dev/urandom >"$CLUSTER/munge/key"
    munged --key-file="$CLUSTER/munge/key" --socket="$CLUSTER/munge/socket" --pid-file="$CLUSTER/munged.pid" \
        --seed-file="$CLUSTER/munge/seed" --log-file="$CLUSTER/log/munged" </dev/null || last_words "munged" munged
    for _ in {1..50}; do munge --socket="$CLUSTER/munge/socket" --no-input >/dev/null 2>&1 && return; sleep 0.1; done
    last_words "munge does not answer" munged
}

# A bridge on this machine with the controller on it, and a cable to each node.
connect() { # nodes
    local node
    ip link add "$BRIDGE" type bridge
    ip address add "$NET.1/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up || fail "no bridge $BRIDGE"
    echo "127.0.0.1 localhost" >"$CLUSTER/hosts"
    echo "$NET.1 $(hostname)" >>"$CLUSTER/hosts"
    for node in $(seq "$1"); do
        ip netns add "$BRIDGE-n$node"
        ip link add "$BRIDGE$node" type veth peer name eth0 netns "$BRIDGE-n$node"
        ip link set "$BRIDGE$node" master "$BRIDGE" up
        ip -n "$BRIDGE-n$node" address add "$NET.$((10 + node))/24" dev eth0
        ip -n "$BRIDGE-n$node" link set lo up
        ip -n "$BRIDGE-n$node" link set eth0 up || fail "no network for node n$node"
        echo "$NET.$((10 + node)) n$node" >>"$CLUSTER/hosts"
    done
}

start_node() { # name
    install -d "$CLUSTER/spool.$1" "$CLUSTER/tmp.$1"
    local program=(bash "$0" _node "$1" "$CLUSTER")
    [ "$isolation" = no ] || program=(nsenter --net="/run/netns/$BRIDGE-$1" unshare --uts --ipc --pid --mount --fork
        --kill-child=KILL --mount-proc "${program[@]}")
    setsid "${program[@]}" </dev/null >>"$CLUSTER/log/$1" 2>&1 &
    echo $! >"$CLUSTER/$1.pid"
}

# The first process of a node; its end is the node's.
node() { # name
    if [ "$isolation" = yes ]; then
        hostname "$1"
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        mount --bind "$CLUSTER/hosts" /etc/hosts
    fi
    slurmd -D -f "$CLUSTER/slurm.conf" -N "$1" &
    trap 'kill $! 2>/dev/null; exit' TERM
    while :; do wait; sleep 1; done
}

wait_idle() { # nodes
    local idle
    for _ in {1..240}; do
        idle=$(sinfo --noheader --partition=batch --states=idle --format=%D 2>/dev/null)
        [ "${idle:-0}" -lt "$1" ] || return 0
        sleep 0.25
    done
    sinfo -N --long >&2
    last_words "the nodes did not become idle" controller
}

# Most nodes come back by themselves, when they register; to resume those is an error.
wait_back() { # name
    local state
    for _ in {1..100}; do
        state=$(sinfo --noheader --partition=batch --nodes="$1" --format=%t 2>/dev/null)
        [[ ! $state =~ ^(idle|mix|alloc)$ ]] || return 0
        [[ $state != down* ]] || scontrol update nodename="$1" state=resume 2>/dev/null
        sleep 0.5
    done
    last_words "node $1 did not come back" controller
}

up() {
    local nodes=${1:-3} cpus=${2:-8} node
    need
    [ ! -e "$CLUSTER/slurm.conf" ] || fail "$CLUSTER is there already; first  $0 down"
    if isolated; then isolation=yes; else isolation=no nodes=1 cpus=$((${1:-3} * cpus)); fi
    install -d "$CLUSTER/log" "$CLUSTER/controller"
    echo "$isolation" >"$CLUSTER/isolation"
    configure "$nodes" "$cpus" >"$CLUSTER/slurm.conf"
    start_munge
    [ "$isolation" = no ] || connect "$nodes"
    slurmctld -f "$CLUSTER/slurm.conf" </dev/null >"$CLUSTER/log/start" 2>&1 || last_words "slurmctld" start
    for node in $(seq "$nodes"); do start_node "n$node"; done
    wait_idle "$nodes"
    echo "SLURM_CONF=$SLURM_CONF"
}

down() {
    local file name
    [ -e "$CLUSTER" ] || return 0
    ! alive controller || timeout 60 scancel --user="$(id -un)" 2>/dev/null
    stop controller
    for file in "$CLUSTER"/n*.pid; do
        name=$(basename "$file" .pid)
        [ ! -e "$file" ] || stop "$name" "$([ "$isolation" = yes ] && echo KILL || echo TERM)"
    done
    stop munged
    if [ "$isolation" = yes ]; then
        for file in /run/netns/"$BRIDGE"-n*; do [ ! -e "$file" ] || ip netns del "${file##*/}"; done
        ip link del "$BRIDGE" 2>/dev/null
    fi
    rm -rf "$CLUSTER"
}

export SLURM_CONF=$CLUSTER/slurm.conf
isolation=$(cat "$CLUSTER/isolation" 2>/dev/null)
case ${1:-} in
    up) shift && up "$@" ;;
    down) down ;;
    crash) stop "${2:?name a node}" KILL ;;
    revive) start_node "${2:?name a node}" && wait_back "$2" ;;
    _node) CLUSTER=$3 && node "$2" ;;
    *) sed -n '2,/^set/{/^set/d;p}' "$0" && exit 2 ;;
esac
