#!/usr/bin/env bash
# Undoes what the other scripts here have done to hosts, and nothing else.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=targets.sh
. "$(dirname "$0")/targets.sh"

usage() {
    cat <<END
usage: ${0##*/} --target KIND [options] HOST...

Removes the tables and queueing disciplines of partition.sh, clog.sh, lossy.sh and slow.sh from the
hosts; what was never there is no error. A HOST is NAME or NAME=ADDRESS; the address does not matter.

options:
$TARGET_OPTIONS
END
}

# Says by its status whether all is undone; "set -e" does not hold in it, because the caller asks.
heal() {
    local name=$1 table devices device
    for table in "$PARTITION_TABLE" "$LOSS_TABLE"; do
        # Made first, because deleting what is not there is an error.
        on "$name" nft "add table inet $table
            delete table inet $table" || return
    done
    # Lines are "qdisc KIND HANDLE: dev NAME root ...".
    devices=$(IS_DRY_RUN='' on "$name" tc qdisc show) || return
    devices=$(awk -v ours="$QDISC_HANDLE:" '$3 == ours { print $5 }' <<<"$devices")
    for device in $devices; do
        on "$name" tc qdisc delete dev "$device" root || return
        say "$name: removed the queueing discipline at $device"
    done
    say "$name is healed"
}

while [ $# -gt 0 ]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --*)
            take_target_option "$@"
            [ "$SHIFT" -gt 0 ] || die "unknown option $1; see --help"
            shift "$SHIFT"
            ;;
        *) break ;;
    esac
done
check_target
[ $# -gt 0 ] || die 'name a host'
failed=
for host in "$@"; do
    # A host that is gone does not keep the others from being healed.
    heal "${host%%=*}" || failed+=" ${host%%=*}"
done
[ -z "$failed" ] || die "not healed:$failed"
