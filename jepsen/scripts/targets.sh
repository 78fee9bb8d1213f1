# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source this file use what is set here
# Where a fault happens: the part that all scripts here share. Source it; it does nothing by itself.
#
# A host is NAME or NAME=ADDRESS. What NAME is depends on the target:
#   netns  a network namespace of this machine
#   host   an ssh destination, or "local" for this machine
#   pod    a pod of Kubernetes, reached by an ephemeral container
# ADDRESS is the IPv4 address that the other hosts see; it is looked up when it is not given.
#
# Rules of the packet filter are in tables of their own, queueing disciplines have a handle of their
# own, so that undoing removes what these scripts made and nothing else.

PARTITION_TABLE=trefoil_partition
LOSS_TABLE=trefoil_loss
QDISC_HANDLE=7e0f

TARGET=
DEVICE=
SUDO=()
KUBE_NAMESPACE=default
DEBUG_IMAGE=nicolaka/netshoot
IS_DRY_RUN=
NAMES=()
declare -A ADDRESSES=()

TARGET_OPTIONS='  --target KIND      netns, host or pod; see README.md
  --sudo             on hosts: run nft and tc through "sudo -n"
  --namespace NAME   of the pods (default: default)
  --image IMAGE      for the ephemeral container: must have nft and tc
                     (default: nicolaka/netshoot)
  --dry-run          print what would be done and do nothing
  --help             this text'

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

say() {
    printf '%s\n' "$*"
}

# Takes one option of all scripts; sets SHIFT to how many words it had, 0 when it is none of them.
take_target_option() {
    SHIFT=2
    case $1 in
        --sudo) SUDO=(sudo -n) SHIFT=1 ;;
        --dry-run) IS_DRY_RUN=1 SHIFT=1 ;;
        --target | --namespace | --image | --device)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in
                --target) TARGET=$2 ;;
                --namespace) KUBE_NAMESPACE=$2 ;;
                --image) DEBUG_IMAGE=$2 ;;
                --device) DEVICE=$2 ;;
            esac
            ;;
        *) SHIFT=0 ;;
    esac
}

check_target() {
    case $TARGET in
        netns | host | pod) ;;
        '') die 'say where: --target netns, host or pod' ;;
        *) die "unknown target $TARGET: netns, host or pod" ;;
    esac
}

# Reads hosts into NAMES and ADDRESSES; refuses bad names, doubles and hosts without an address.
take_hosts() {
    local word name address
    for word in "$@"; do
        name=${word%%=*}
        [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._@-]*$ ]] || die "not the name of a host: $name"
        [ -z "${ADDRESSES[$name]:-}" ] || die "$name is named twice"
        case $word in
            *=*) address=${word#*=} ;;
            *) address=$(look_up "$name") || die "find the address of $name; or give $name=ADDRESS" ;;
        esac
        is_address "$address" || die "not an IPv4 address of $name: '$address'"
        for other in "${ADDRESSES[@]}"; do
            [ "$other" != "$address" ] || die "two hosts have the address $address"
        done
        ADDRESSES[$name]=$address
        NAMES+=("$name")
    done
}

is_address() {
    local part parts
    IFS=. read -r -a parts <<<"$1"
    [ ${#parts[@]} -eq 4 ] || return 1
    for part in "${parts[@]}"; do
        [[ $part =~ ^[0-9]{1,3}$ ]] && [ "$((10#$part))" -le 255 ] || return 1
    done
}

look_up() {
    case $TARGET in
        netns) ip -n "$1" -4 -oneline address show scope global | awk 'NR == 1 { sub("/.*", "", $4); print $4 }' ;;
        host) [ "$1" != local ] && getent ahostsv4 "${1#*@}" | awk 'NR == 1 { print $1 }' ;;
        pod) kubectl --namespace "$KUBE_NAMESPACE" get pod "$1" --output 'jsonpath={.status.podIP}' ;;
    esac
}

# Words as any shell reads them back.
quoted() {
    local word
    for word in "$@"; do
        printf "'%s' " "${word//\'/\'\\\'\'}"
    done
}

# Runs a program with its arguments in the network of a host.
on() {
    local name=$1
    shift
    if [ -n "$IS_DRY_RUN" ]; then
        say "on $name: $*"
        return
    fi
    case $TARGET:$name in
        netns:*) ip netns exec "$name" "$@" ;;
        host:local) "${SUDO[@]}" "$@" ;;
        host:*) ssh -o BatchMode=yes "$name" -- "$(quoted "${SUDO[@]}" "$@")" </dev/null ;;
        pod:*)
            kubectl --namespace "$KUBE_NAMESPACE" debug "pod/$name" --quiet --stdin \
                --image "$DEBUG_IMAGE" --profile netadmin -- "$@" </dev/null
            ;;
    esac
}

# The device of a host that leads to another host.
device_of() {
    local name=$1 other
    if [ -n "$DEVICE" ]; then
        say "$DEVICE"
        return
    fi
    for other in "${NAMES[@]}"; do
        [ "$other" != "$name" ] || continue
        IS_DRY_RUN='' on "$name" ip -oneline route get "${ADDRESSES[$other]}" | sed -n 's/.* dev \([^ ]*\).*/\1/p'
        return
    done
    die "name two hosts, or a --device"
}

# Puts a queueing discipline of ours at a device, in place of an earlier one of ours or of the system's
# default, never in place of somebody else's.
shape_device() {
    local name=$1 device=$2 present
    shift 2
    present=$(IS_DRY_RUN='' on "$name" tc qdisc show dev "$device" root)
    case $present in
        '' | "qdisc "*" 0: "*) ;;
        # One kind cannot take the handle of another.
        "qdisc "*" $QDISC_HANDLE: "*) on "$name" tc qdisc delete dev "$device" root ;;
        *) die "$name has a queueing discipline at $device already: $present" ;;
    esac
    on "$name" tc qdisc add dev "$device" root handle "$QDISC_HANDLE:" "$@" ||
        die "$name refused it; \"qdisc kind is unknown\" means that its kernel has no $1"
}
