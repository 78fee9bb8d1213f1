# RECORD PRELOAD GROUP... -- PROGRAM ARGUMENT...: becomes the program, as a process that is on the record before
# it does anything, and inside its control groups. The lock keeps the record from being undone in between.
record=$1
preload=$2
shift 2
{ command exec 9<"$record"; } 2>/dev/null || exit 125
flock -s 9
[ -f "$record" ] || exit 125
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs" || exit 125
    shift
done
shift
echo "process $$ $(cut -d' ' -f22 /proc/$$/stat)" >>"$record" || exit 125
exec 9<&-
[ -z "$preload" ] || export LD_PRELOAD="$preload"
exec "$@"
