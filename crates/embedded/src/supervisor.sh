# The supervisor of a private PostgreSQL, started by its owner with the read end of a pipe as standard input.
#
# It runs the server as its child and shuts it down when the pipe closes: that happens when the owner stops it, and also
# when the owner is killed in a way that it cannot answer. Standard output is the server's lock file; it passes to every
# process below as descriptor 3, so the lock is free only when none of them is left.
#
# Arguments: the signal that shuts the server down (INT: fast, QUIT: at once), its log, the server's command line.
{
    # Who may end the server is its owner alone, not a signal to the whole terminal or service.
    trap '' INT TERM HUP
    signal=$1 log=$2
    shift 2
    exec 3>&1 4<&0 </dev/null >>"$log" 2>&1
    "$@" 4<&- &
    server=$!
    (
        # Nothing is ever written to the pipe: this ends when it closes.
        while read -r _line; do :; done
        kill -"$signal" "$server"
    ) <&4 4<&- &
    watch=$!
    exec 4<&-
    wait "$server"
    code=$?
    # The server ended unasked: the watch must not signal a process that gets the same number later.
    kill -KILL "$watch" 2>/dev/null
    exit "$code"
}
