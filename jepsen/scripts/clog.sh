#!/usr/bin/env bash
# Cuts links one after the other and lets them come back in another order.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=targets.sh
. "$(dirname "$0")/targets.sh"

usage() {
    cat <<END
usage: ${0##*/} --target KIND [options] HOST HOST...

Takes half of the links between the hosts, one direction each, cuts them one after the other and lets
them come back in another order. Ends by itself and leaves all links open, also when it is interrupted.
A HOST is NAME or NAME=ADDRESS.

options:
  --seconds N        how long all of it takes (default: 20)
  --seed N           the same seed takes the same links in the same order (default: by chance, printed)
$TARGET_OPTIONS
END
}

# Puts LINKS into a random order.
shuffle() {
    local last other kept
    for ((last = ${#LINKS[@]} - 1; last > 0; last--)); do
        other=$((RANDOM % (last + 1)))
        kept=${LINKS[last]}
        LINKS[last]=${LINKS[other]}
        LINKS[other]=$kept
    done
}

open_all() {
    local name
    for name in "${NAMES[@]}"; do
        on "$name" nft "add table inet $PARTITION_TABLE
            delete table inet $PARTITION_TABLE"
    done
    say 'all links are open'
}

prepare() {
    local name
    for name in "${NAMES[@]}"; do
        on "$name" nft "add table inet $PARTITION_TABLE
            delete table inet $PARTITION_TABLE
            add table inet $PARTITION_TABLE
            add set inet $PARTITION_TABLE cut { type ipv4_addr; }
            add chain inet $PARTITION_TABLE input { type filter hook input priority -300; policy accept; }
            add rule inet $PARTITION_TABLE input ip saddr @cut counter drop"
    done
}

# $1: add or delete. Does it to every link in turn.
each_link() {
    local link from to
    for link in "${LINKS[@]}"; do
        read -r from to <<<"$link"
        on "$to" nft "$1 element inet $PARTITION_TABLE cut { ${ADDRESSES[$from]} }"
        say "$1 cut $from -> $to"
        [ -n "$IS_DRY_RUN" ] || sleep "$PAUSE"
    done
}

SECONDS_ALL=20
SEED=
while [ $# -gt 0 ]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --seconds | --seed)
            [[ ${2:-} =~ ^[0-9]{1,5}$ ]] || die "$1 needs a number below 100000"
            case $1 in
                --seconds) SECONDS_ALL=$2 ;;
                --seed) SEED=$2 ;;
            esac
            shift 2
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
take_hosts "$@"
[ ${#NAMES[@]} -ge 2 ] || die 'name two hosts or more'
SEED=${SEED:-$RANDOM}
say "seed $SEED"
RANDOM=$SEED
LINKS=()
for from in "${NAMES[@]}"; do
    for to in "${NAMES[@]}"; do
        [ "$from" = "$to" ] || LINKS+=("$from $to")
    done
done
shuffle
LINKS=("${LINKS[@]:0:$(((${#LINKS[@]} + 1) / 2))}")
PAUSE=$(awk "BEGIN { print $SECONDS_ALL / (2 * ${#LINKS[@]}) }")
trap open_all EXIT
trap 'exit 130' INT TERM
prepare
each_link add
shuffle
each_link delete
