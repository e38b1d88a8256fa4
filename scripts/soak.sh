#!/usr/bin/env bash
# Faults by the hundred, by counts: scripts/soak.sh [PART…], all parts without. A part ends
# with the first round that fails, and names its seed.
#   fleet  KILLS (1000), LOSSES (200): rounds of make test-fleet in which much goes wrong, until
#          nodes were killed and unplugged so often; FLEETS (2) at a time
#   edge   KILLS (1000), LOSSES (200): an edge with a disk tier, killed and unplugged under load
#   steady SOAK (1h): the same edge left alone: its heap and descriptors stay flat
#   power  LOSSES (200): a control node that loses power in the middle of purges and pushes, and
#          one among snapshots and trimmings of its log
# To add a part: a function of its name.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go} SEED=${SEED:-}

fleet() {
  local n=${FLEETS:-2} seed=${SEED:-$(date +%s)} status=0 pids=()
  export PERIGEE_FLEET_KILLS=$(((${KILLS:-1000} + n - 1) / n)) PERIGEE_FLEET_LOSSES=$(((${LOSSES:-200} + n - 1) / n))
  export PERIGEE_FLEET_STEPS=${STEPS:-40} PERIGEE_FLEET_FAULTS=${FAULTS:-5} PERIGEE_FLEET_DISKS=ctl1,fra1,dns1
  for ((i = 0; i < n; i++)); do # with seeds of its own; of two at the same time one has three control nodes
    (PERIGEE_FLEET_SEED=$((seed + 100001 * i)) "$GO" test -count=1 -v -timeout 12h -run '^TestFleet$' ./internal/fleet | sed "s/^/$i /") &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || status=$?
  done
  return "$status"
}

power() {
  PERIGEE_FLEET_SEED=$SEED PERIGEE_POWER_LOSSES=${LOSSES:-200} "$GO" test -count=1 -v -timeout 3h -run '^TestPowerLoss$' ./internal/fleet
  PERIGEE_POWER_LOSSES=${LOSSES:-200} "$GO" test -count=1 -v -timeout 3h -run '^TestPowerLossAmongSnapshots$' ./internal/control
}

edge() {
  PERIGEE_EDGE_SEED=$SEED PERIGEE_EDGE_KILLS=${KILLS:-1000} PERIGEE_EDGE_LOSSES=${LOSSES:-200} \
    "$GO" test -count=1 -v -timeout 6h -run '^(TestEdgeKilled|TestEdgePowerLoss)$' ./cmd/perigee
}

steady() {
  PERIGEE_EDGE_SEED=$SEED PERIGEE_EDGE_SOAK=${SOAK:-1h} "$GO" test -count=1 -v -timeout 12h -run '^TestEdgeSoak$' ./cmd/perigee
}

for part in "${@:-fleet power edge steady}"; do
  for p in $part; do
    echo "== soak: $p"
    "$p"
  done
done
