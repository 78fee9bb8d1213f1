#!/usr/bin/env bash
# Loses, doubles or reorders a part of the packets between hosts.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=targets.sh
. "$(dirname "$0")/targets.sh"

usage() {
    cat <<END
usage: ${0##*/} --target KIND [options] WHAT PERCENT HOST HOST...

Disturbs a part of the packets between the hosts until heal.sh. A second call replaces the first. A HOST
is NAME or NAME=ADDRESS.

what:
  loss        dropped by the packet filter where they arrive; only packets of the named hosts
  duplicate   sent twice by netem; all packets that leave by the device, clients' too
  reorder     overtake others by 10 ms, by netem; all packets that leave by the device, clients' too

Netem is a module of the kernel that not every machine has; the script says so.

options:
  --device NAME      for netem (default: the one that leads to the next host)
$TARGET_OPTIONS
END
}

lose() {
    local name other others
    for name in "${NAMES[@]}"; do
        others=
        for other in "${NAMES[@]}"; do
            [ "$other" = "$name" ] || others+="${others:+, }${ADDRESSES[$other]}"
        done
        on "$name" nft "add table inet $LOSS_TABLE
            delete table inet $LOSS_TABLE
            add table inet $LOSS_TABLE
            add chain inet $LOSS_TABLE input { type filter hook input priority -300; policy accept; }
            add rule inet $LOSS_TABLE input ip saddr { $others } numgen random mod 100 < $PERCENT counter drop"
        say "$name loses $PERCENT % of what comes from $others"
    done
}

disturb() {
    local name device
    for name in "${NAMES[@]}"; do
        device=$(device_of "$name")
        shape_device "$name" "$device" netem "$@"
        say "$name: $* at $device"
    done
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
[ $# -ge 2 ] || die 'say what and how many percent; see --help'
WHAT=$1
PERCENT=$2
shift 2
if ! [[ $PERCENT =~ ^[0-9]{1,3}$ ]] || [ "$((10#$PERCENT))" -lt 1 ] || [ "$((10#$PERCENT))" -gt 100 ]; then
    die "not 1 to 100 percent: $PERCENT"
fi
PERCENT=$((10#$PERCENT))
take_hosts "$@"
[ ${#NAMES[@]} -ge 2 ] || die 'name two hosts or more'
case $WHAT in
    loss) lose ;;
    duplicate) disturb duplicate "$PERCENT%" ;;
    reorder) disturb delay 10ms reorder "$PERCENT%" ;;
    *) die "unknown: $WHAT; loss, duplicate or reorder" ;;
esac
