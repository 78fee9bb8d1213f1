# Removes all that the record "$1" names, in reverse order, and then the record. Also run by `sh -c`, so it
# must not depend on its own path. Whoever comes second finds no record and is content.
record=$1
# Its name is trefoil-<owner>-<site>.<start time>. The owner may be alive, among its clients; it is never ended.
owner=${record##*/trefoil-}
owner=${owner%%-*}
cd /
{ command exec 9<"$record"; } 2>/dev/null || exit 0
flock 9
[ -f "$record" ] || exit 0
failed=0

try() { # for 10 s
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return 1
        sleep 0.1
    done
}

complain() {
    echo "undo: $*" >&2
    failed=1
}

ended() { # PROCESS: gone, or waited for by somebody else
    [ ! -e "/proc/$1" ] || grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status"
}

end() { # PROCESS
    kill -9 "$1" 2>/dev/null
    try ended "$1" || complain "process $1 does not end"
}

remove_process() { # ID START: the start time tells whether the id was given to another one since
    [ "$(cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null)" != "$2" ] || end "$1"
}

remove_namespace() {
    [ -e "/run/netns/$1" ] || return 0
    for process in $(ip netns pids "$1"); do
        [ "$process" = "$owner" ] || end "$process"
    done
    try ip netns delete "$1" || complain "namespace $1 stays"
}

remove_group() {
    [ -d "$1" ] || return 0
    for process in $(cat "$1/cgroup.procs"); do
        end "$process"
    done
    try rmdir "$1" || complain "group $1 stays"
}

remove_mount() {
    while mountpoint -q "$1"; do
        try umount "$1" && continue
        complain "$1 was busy"
        umount -l "$1"
    done
}

remove_loop() { # IMAGE
    for device in $(losetup --noheadings --output NAME --associated "$1"); do
        try losetup --detach "$device" || complain "$device stays"
    done
}

while read -r kind what; do
    case $kind in
        process) remove_process ${what% *} ${what#* } ;;
        namespace) remove_namespace "$what" ;;
        group) remove_group "$what" ;;
        mount) remove_mount "$what" ;;
        loop) remove_loop "$what" ;;
        folder) rm -rf --one-file-system "$what" || complain "$what stays" ;;
        *) complain "unknown: $kind $what" ;;
    esac
done <<LINES
$(tac "$record")
LINES
rm -f "$record"
exit "$failed"
