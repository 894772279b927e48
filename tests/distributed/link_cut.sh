#!/usr/bin/env bash
# Two hosts, one rank each, whose link is cut for 30 seconds in the middle of a run: both ranks must
# end with an error that names the other, and the run must go on from its checkpoint afterwards.
#
# The hosts are network namespaces of this machine, joined by a third one that stands for the switch
# between them. This needs root, the program `ip` (Debian, Ubuntu: apt install iproute2), and permission
# to make namespaces. `--check` tests nothing: its exit status is 0 if they can be made here.
#
# Usage: tests/distributed/link_cut.sh path/to/densecl-trainer | --check
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
    echo "link_cut.sh: network namespaces need root and the program ip (package iproute2)" >&2
    exit 1
fi
if [ "${1:-}" = --check ]; then
    probe=densecl-probe-$$
    ip netns add "$probe"
    status=0
    ip -n "$probe" link add bridge type bridge || status=$?
    ip netns delete "$probe"
    exit "$status"
fi

trainer=$(realpath "${1:?usage: link_cut.sh path/to/densecl-trainer}")
config=$(dirname "$(realpath "$0")")/../../trainer/configs/tiny.toml
cut_seconds=30
patience=10

folder=$(mktemp -d)
prefix=densecl-$$
hosts=("$prefix-a" "$prefix-b")
switch=$prefix-switch
ranks=()

clean_up() {
    for rank in "${ranks[@]}"; do
        kill -9 "$rank" 2>/dev/null || true
    done
    for namespace in "${hosts[@]}" "$switch"; do
        ip netns delete "$namespace" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap clean_up EXIT

fail() {
    echo "FAILED: $1" >&2
    for rank in 0 1; do
        sed "s/^/  rank $rank: /" "$folder/$rank.log" >&2
    done
    exit 1
}

ip netns add "$switch"
ip -n "$switch" link add bridge type bridge
ip -n "$switch" link set bridge up
for i in 0 1; do
    ip netns add "${hosts[$i]}"
    ip -n "${hosts[$i]}" link set lo up
    ip -n "${hosts[$i]}" link add eth0 type veth peer name "host$i" netns "$switch"
    ip -n "${hosts[$i]}" address add "10.77.0.$((i + 1))/24" dev eth0
    ip -n "${hosts[$i]}" link set eth0 up
    ip -n "$switch" link set "host$i" master bridge
    ip -n "$switch" link set "host$i" up
done

# start SETTING... : both ranks, in the background.
start() {
    ranks=()
    for rank in 0 1; do
        RANK=$rank LOCAL_RANK=0 WORLD_SIZE=2 MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=1 \
            ip netns exec "${hosts[$rank]}" "$trainer" pretrain --config "$config" --device cpu \
            --out "$folder/run" --distributed-timeout "$patience" "$@" >"$folder/$rank.log" 2>&1 &
        ranks+=($!)
    done
}

# ended : waits for both ranks and sets `statuses`.
ended() {
    statuses=()
    for rank in "${ranks[@]}"; do
        local status=0
        wait "$rank" || status=$?
        statuses+=("$status")
    done
    ranks=()
}

checkpoints() {
    find "$folder/run/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null | wc -l
}

schedule=(schedule.picture_steps=0 schedule.checkpoint_steps=5 schedule.report_steps=5)
start --set "${schedule[@]}" schedule.epochs=100000
for _ in $(seq 600); do
    [ "$(checkpoints)" -gt 0 ] && break
    sleep 0.1
done
[ "$(checkpoints)" -gt 0 ] || fail "the ranks did not train together"

echo "cutting the link for $cut_seconds s"
ip -n "$switch" link set host1 down
cut=$SECONDS
(sleep "$cut_seconds" && ip -n "$switch" link set host1 up) &
restore=$!
ended
took=$((SECONDS - cut))
for rank in 0 1; do
    echo "rank $rank: $(grep '^error' "$folder/$rank.log" || true)"
    [ "${statuses[$rank]}" = 1 ] || fail "rank $rank ended with status ${statuses[$rank]}"
    grep -q "rank $((1 - rank)) has not been heard of for $patience s" "$folder/$rank.log" ||
        fail "rank $rank does not name the other"
done
echo "both ranks ended $took s after the cut"
[ "$took" -lt 60 ] || fail "that is more than a minute"
wait "$restore"

steps=$(find "$folder/run/checkpoints" -maxdepth 1 -name 'step-*' | sort | tail -1 | sed 's/.*step-0*//')
start --resume --set "${schedule[@]}" schedule.epochs=$((steps / 8 + 2))
ended
[ "${statuses[*]}" = "0 0" ] || fail "the run did not go on"
grep -q resumed "$folder/0.log" || fail "the run began anew"
echo "the run went on from step $steps to its end"
