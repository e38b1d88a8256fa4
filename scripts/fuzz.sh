#!/usr/bin/env bash
# Runs every fuzz target in turn, each for the time given (default 60s).
# usage: scripts/fuzz.sh [TIME] [PACKAGE…]
set -euo pipefail
time=${1:-60s}
shift || true
[ $# -gt 0 ] || set -- ./...
found=0
for pkg in $(go list "$@"); do
  dir=$(go list -f '{{.Dir}}' "$pkg")
  targets=$(grep -hoE '^func (Fuzz[A-Za-z0-9_]*)' "$dir"/*_test.go 2>/dev/null | awk '{print $2}' | sort -u || true)
  for target in $targets; do
    found=$((found + 1))
    echo "== $pkg $target ($time)"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 50x "$pkg" | grep -v '^fuzz: elapsed' || exit 1
  done
done
[ "$found" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
echo "$found fuzz targets ran for $time each without a finding"
