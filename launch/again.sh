#!/usr/bin/env bash
# Runs a command again when it stopped with a checkpoint saved or crashed:
#
#     bash launch/again.sh RESTARTS COMMAND [ARGUMENT...]
#
# exit code  0  done                            -> 0
#            2  a mistake of the user's         -> 2, never again
#           75  stopped by SIGTERM, it is saved -> again, as often as it happens
#     another   a crash                         -> again, RESTARTS times in all
#
# After SIGTERM or Ctrl-C to this script the command gets SIGTERM and nothing is started again: the
# code that it ends with is ours. tpu_vm.sh and skypilot.yaml run this on every machine.
set -u

# Knobs, from the environment.
: "${PAUSE:=15}" # seconds before the next start, in which the peers of a crash come to their end

if [[ $# -lt 2 || ! $1 =~ ^[0-9]+$ ]]; then
    echo "again.sh: give the number of restarts and a command." >&2
    exit 2
fi
left=$1
shift

child=''
owed=''
stopped=''
interrupted=''
# shellcheck disable=SC2329  # the trap calls it
stop() {
    stopped=yes
    interrupted=yes
    # Just started, its number not yet known: the signal is owed to it.
    if [[ -n $child ]]; then kill -s TERM "$child" 2>/dev/null; else owed=yes; fi
}
trap stop TERM INT

while [[ -z $stopped ]]; do
    "$@" &
    child=$!
    if [[ -n $owed ]]; then kill -s TERM "$child" 2>/dev/null; fi
    # A signal cuts `wait` short with a code of its own, so it is asked again; 127 from a second
    # question means that the first had the answer.
    code=127
    interrupted=yes
    while [[ -n $interrupted ]]; do
        interrupted=''
        wait "$child"
        answer=$?
        if ((answer != 127)); then code=$answer; fi
    done
    child=''
    case $code in
        0 | 2) exit "$code" ;;
        75) reason="stopped, with a checkpoint saved" ;;
        *)
            reason="crashed with exit code $code"
            if ((left == 0)); then
                echo "again.sh: $reason, and no restarts are left." >&2
                exit "$code"
            fi
            left=$((left - 1))
            ;;
    esac
    if [[ -z $stopped ]]; then
        echo "again.sh: $reason; starting again in $PAUSE s, $left restarts after a crash left." >&2
        sleep "$PAUSE" &
        wait $!
    fi
done
exit "$code"
