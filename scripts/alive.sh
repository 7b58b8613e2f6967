#!/bin/sh
# alive.sh COMMAND...: run a command that is silent for minutes; say on standard error now and then that it goes on.
# On a terminal one line counts the seconds; elsewhere a line comes every ALIVE_SECONDS (default 15).
(
    seconds=0
    step=${ALIVE_SECONDS:-15}
    [ -t 2 ] && step=1
    # What sleeps on when the command has ended must not hold a pipe open.
    while sleep "$step" >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + step))
        if [ -t 2 ]; then printf '\r  %d s ' "$seconds" >&2; else echo "  still at it after $seconds s" >&2; fi
    done
) &
clock=$!
trap 'kill "$clock" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
"$@"
status=$?
[ -t 2 ] && printf '\r          \r' >&2
exit $status
