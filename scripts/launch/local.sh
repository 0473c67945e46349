#!/usr/bin/env bash
# scripts/launch/local.sh [--print] N JOB [--flags]: one run in N processes on this machine, to try
# what a cluster would do. JAX_NUM_CPU_DEVICES=4 gives each process so many CPU devices, else 1; of
# GPUs, process I takes the I-th (JAX_PLATFORMS=cpu: none). --print only prints the commands.
# Process 0 has the terminal, the others write into files. When one fails, the others are ended, and
# its status is that of the script. SIGTERM and Ctrl-C go to all, and all are waited for; Ctrl-\
# ends them at once. No process stays behind, unless this script itself ends by kill -9.
set -eu
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit; fi
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
run=(env)
if [ "${1:-}" = --print ]; then run=(printf '%q ') && shift; fi
count=${1:-} job=${2:-}
known() { [[ $1 =~ ^[a-z][a-z0-9_]*$ && (-e experiments/$1.py || -e experiments/$1/__main__.py) ]]; }
if [[ ! $count =~ ^[1-9][0-9]*$ ]] || ! known "$job"; then
    echo "error: no number '$count' or no job '$job'; usage: local.sh [--print] N JOB [--flags]" >&2
    exit 2
fi
shift 2
port=$(python -c 'import socket as s; a = s.create_server(("", 0)); print(a.getsockname()[1])')
process() {
    "${run[@]}" "JAX_LOCAL_DEVICE_IDS=$1" python -m "experiments.$job" \
        "--coordinator=localhost:$port" "--num_processes=$count" "--process_id=$1" "${@:2}"
}
if [ "${run[0]}" = printf ]; then
    for ((i = 0; i < count; i++)); do process "$i" "$@" && echo; done
    exit
fi

groups=() status=0 stopping='' deadline=''
tell() { # sends a signal to all and counts whom it reached
    reached=0
    for group in "${groups[@]}"; do
        if kill "-$1" -- "-$group" 2>/dev/null; then reached=$((reached + 1)); fi
    done
}
next() { # waits for the next end: of process i, with status code
    until read -r i code <&3; do
        if [ "$deadline" ] && ((SECONDS > deadline)); then exit "$status"; fi
        tell 0
        sleep 0.1
        if [ "$reached" -lt "$left" ]; then # killed before it could say so?
            read -r i code <&3 || { i='?' && code=137; }
            return
        fi
    done
}
logs=$(mktemp -d "${TMPDIR:-/tmp}/dlcore-local.XXXXXX")
: >"$logs/ended" && exec 3<"$logs/ended" # who ended, and how, in the order of the ends
trap 'tell KILL; wait 2>/dev/null; if [ "$status" = 0 ]; then rm -r "$logs"; fi' EXIT
trap 'status=131; exit 131' QUIT
trap 'stopping=TERM; tell TERM' TERM HUP
trap 'stopping=INT; tell INT' INT
if [ "$count" -gt 1 ]; then echo "processes 1 to $((count - 1)) write to $logs/N.log" >&2; fi
set -m # each process in a group of its own, with the processes that it starts
for ((i = 0; i < count; i++)); do
    (
        trap : INT TERM HUP # stays to say how the process ended
        if [ "$i" != 0 ]; then exec >"$logs/$i.log" 2>&1; fi
        process "$i" "$@" </dev/null 3<&- && how=0 || how=$?
        echo "$i $how" >>"$logs/ended"
    ) &
    groups+=($!)
done
set +m
if [ "$stopping" ]; then tell "$stopping"; fi # in the meantime
for ((left = count; left > 0; left--)); do
    next
    if [ "$code" = 0 ] || [ "$status" != 0 ]; then continue; fi
    status=$code
    echo "process $i ended with status $code" >&2
    if [ -s "$logs/$i.log" ]; then tail -n 20 "$logs/$i.log" >&2; fi
    # After a signal they are saving, and a second one would cut that short.
    if [ -z "$stopping" ]; then tell TERM && deadline=$((SECONDS + 3)); fi
done
exit "$status"
