#!/usr/bin/env bash
# scripts/launch/tpu_vm.sh [--print] TPU ZONE JOB --workdir=DIR [--flags]: one run on all machines
# of a Cloud TPU VM. On each the checkout is ~/dlcore with its .venv, and DIR is the same for all.
# scripts/launch/tpu_vm.sh [--print] TPU ZONE --stop: all save the same step and leave.
# --print prints the command instead.
#
# JAX finds the coordinator and the number of each machine by itself. The run outlives this
# connection, writes to ~/dlcore/runs/tpu_vm.log, and each machine starts it again when it fails.
set -eu
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit; fi
cd "$(dirname "$0")/../.."
print=
if [ "${1:-}" = --print ]; then print=yes && shift; fi
tpu=${1:-} zone=${2:-} job=${3:-}
known() { [[ $1 =~ ^[a-z][a-z0-9_]*$ && (-e experiments/$1.py || -e experiments/$1/__main__.py) ]]; }
if [ "$job" != --stop ] && ! known "$job"; then
    echo "error: no job '$job'; usage: tpu_vm.sh [--print] TPU ZONE JOB [--flags] | --stop" >&2
    exit 2
fi
shift 3
set -- scripts/launch/supervise python -m "experiments.$job" "$@"
# shellcheck disable=SC2016 # the variables in quotes are those of the machines
if [ "$job" = --stop ]; then
    remote='kill -TERM "$(cat dlcore/runs/tpu_vm.pid)"'
else
    remote='cd dlcore && mkdir -p runs && export PATH="$PWD/.venv/bin:$PATH" && {'
    remote="$remote setsid$(printf ' %q' "$@") >>runs/tpu_vm.log 2>&1 </dev/null &"
    remote="$remote echo \$! >runs/tpu_vm.pid; }"
fi
set -- gcloud compute tpus tpu-vm ssh "$tpu" "--zone=$zone" --worker=all "--command=$remote"
if [ "$print" ]; then printf '%q ' "$@" && echo && exit; fi
exec "$@"
