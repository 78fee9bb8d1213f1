#!/usr/bin/env bash
# Cuts links between hosts, one direction at a time, by dropping packets where they arrive.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=targets.sh
. "$(dirname "$0")/targets.sh"

usage() {
    cat <<END
usage: ${0##*/} --target KIND [options] SHAPE HOST...

Cuts links between hosts until heal.sh. A second call replaces the first. A HOST is NAME or
NAME=ADDRESS. For the leader only, isolate it; for a zone, make it a group.

shapes:
  isolate HOST HOST...    the first host and the others do not see each other
  split HOST...           the first minority of the hosts and the rest (3 hosts or more)
  groups A,B C,D...       hosts of different groups do not see each other
  ring HOST...            each sees a majority, its neighbours in the order given (3 or more)
  bridge HOST...          two halves, which only the first host sees both (3 or more)
  one-way HOST HOST...    the others do not hear the first host
  deaf HOST HOST...       the first host does not hear the others

options:
$TARGET_OPTIONS
END
}

declare -A CUT=() GROUP=()

# Whether the host at place $2 may hear the host at place $1.
hears() {
    local from=$1 to=$2 ahead distance neighbours=$((COUNT / 2))
    case $SHAPE in
        isolate) [ "$from" -ne 0 ] && [ "$to" -ne 0 ] ;;
        split) [ $((from < (COUNT - 1) / 2)) -eq $((to < (COUNT - 1) / 2)) ] ;;
        groups) [ "${GROUP[${NAMES[from]}]}" = "${GROUP[${NAMES[to]}]}" ] ;;
        one-way) [ "$from" -ne 0 ] ;;
        deaf) [ "$to" -ne 0 ] ;;
        bridge)
            [ "$from" -eq 0 ] || [ "$to" -eq 0 ] ||
                [ $((from <= (COUNT - 1) / 2)) -eq $((to <= (COUNT - 1) / 2)) ]
            ;;
        ring)
            ahead=$(((to - from + COUNT) % COUNT))
            distance=$((ahead < COUNT - ahead ? ahead : COUNT - ahead))
            if [ "$COUNT" -eq 3 ]; then
                # Two neighbours would be everybody: each hears only the one before it.
                [ "$ahead" -eq 1 ]
            elif [ $((neighbours % 2)) -eq 1 ] && [ $((COUNT % 2)) -eq 0 ]; then
                [ "$distance" -le $((neighbours / 2)) ] || [ "$distance" -eq "$neighbours" ]
            else
                [ "$distance" -le $(((neighbours + 1) / 2)) ]
            fi
            ;;
    esac
}

# Reads "A,B C,D" as hosts and their groups.
take_groups() {
    local group number=0 host hosts
    for group in "$@"; do
        IFS=, read -r -a hosts <<<"$group"
        take_hosts "${hosts[@]}"
        for host in "${hosts[@]}"; do
            GROUP[${host%%=*}]=$number
        done
        number=$((number + 1))
    done
    [ "$number" -ge 2 ] || die 'name two groups'
}

cut() {
    local from to
    for ((to = 0; to < COUNT; to++)); do
        for ((from = 0; from < COUNT; from++)); do
            if [ "$from" -ne "$to" ] && ! hears "$from" "$to"; then
                CUT[${NAMES[to]}]+="${CUT[${NAMES[to]}]:+, }${ADDRESSES[${NAMES[from]}]}"
            fi
        done
    done
    local name elements
    for name in "${NAMES[@]}"; do
        elements=${CUT[$name]:-}
        on "$name" nft "add table inet $PARTITION_TABLE
            delete table inet $PARTITION_TABLE
            add table inet $PARTITION_TABLE
            add set inet $PARTITION_TABLE cut { type ipv4_addr; ${elements:+elements = { $elements \}; }}
            add chain inet $PARTITION_TABLE input { type filter hook input priority -300; policy accept; }
            add rule inet $PARTITION_TABLE input ip saddr @cut counter drop"
        say "$name (${ADDRESSES[$name]}) hears nothing from: ${elements:-nobody is cut}"
    done
}

SHAPE=
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
[ $# -gt 0 ] || die 'name a shape; see --help'
SHAPE=$1
shift
HOSTS_MIN=2
case $SHAPE in
    isolate | one-way | deaf) take_hosts "$@" ;;
    split | ring | bridge)
        HOSTS_MIN=3
        take_hosts "$@"
        ;;
    groups) take_groups "$@" ;;
    *) die "unknown shape $SHAPE; see --help" ;;
esac
COUNT=${#NAMES[@]}
[ "$COUNT" -ge "$HOSTS_MIN" ] || die "$SHAPE needs $HOSTS_MIN hosts or more"
cut
