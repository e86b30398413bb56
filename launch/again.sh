#!/usr/bin/env bash
# Restarts a command that stopped with a checkpoint saved, or crashed:
#
#     bash launch/again.sh RESTARTS COMMAND [ARGUMENT...]
#
# exit code  0  done                               -> exits with 0
#            2  a mistake of the user's            -> exits with 2
#           75  stopped by SIGTERM, with all saved -> restarts, every time
#     another   a crash                            -> restarts, RESTARTS times in all
#
# SIGTERM or Ctrl-C to this script is passed on to the command as SIGTERM; nothing is restarted and
# this script exits with the command's code. tpu_vm.sh and skypilot.yaml run it on every machine.
set -u

# Settings, from the environment.
: "${PAUSE:=15}" # seconds before a restart, so that the peers of a crashed process end first

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
    # If the command has just started and its process id is not known yet, it gets the signal later.
    if [[ -n $child ]]; then kill -s TERM "$child" 2>/dev/null; else owed=yes; fi
}
trap stop TERM INT

while [[ -z $stopped ]]; do
    "$@" &
    child=$!
    if [[ -n $owed ]]; then kill -s TERM "$child" 2>/dev/null; fi
    # A signal interrupts `wait`, which then returns another code, so wait again. If the second call
    # returns 127, the first one already had the exit code.
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
        echo "again.sh: $reason; restarting in $PAUSE s, $left restarts after a crash left." >&2
        sleep "$PAUSE" &
        wait $!
    fi
done
exit "$code"
