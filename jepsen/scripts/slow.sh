#!/usr/bin/env bash
# Makes what leaves hosts slow: later, or narrower.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=targets.sh
. "$(dirname "$0")/targets.sh"

usage() {
    cat <<END
usage: ${0##*/} --target KIND [options] WHAT AMOUNT HOST...

Slows all packets that leave the hosts by one device, clients' too, until heal.sh. A second call
replaces the first. A HOST is NAME or NAME=ADDRESS; the device is the one that leads to the next host
named, or --device.

what:
  delay MILLISECONDS     later by so much, and up to half of it more; needs netem, a module of the kernel
                         that not every machine has; the script says so
  rate KBIT_PER_SECOND   no more than that

options:
  --device NAME      the device
$TARGET_OPTIONS
END
}

slow() {
    local name device
    for name in "${NAMES[@]}"; do
        device=$(device_of "$name")
        shape_device "$name" "$device" "$@"
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
[ $# -ge 2 ] || die 'say what and how much; see --help'
WHAT=$1
AMOUNT=$2
shift 2
[[ $AMOUNT =~ ^[1-9][0-9]{0,6}$ ]] || die "not a number from 1 to 9999999: $AMOUNT"
take_hosts "$@"
[ ${#NAMES[@]} -ge 1 ] || die 'name a host'
case $WHAT in
    delay) slow netem delay "${AMOUNT}ms" "$((AMOUNT / 2))ms" limit 10000 ;;
    rate) slow tbf rate "${AMOUNT}kbit" burst 32kb latency 200ms ;;
    *) die "unknown: $WHAT; delay or rate" ;;
esac
