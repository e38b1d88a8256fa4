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
    out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 50x "$pkg" 2>&1) && code=0 || code=$?
    grep -v '^fuzz: elapsed' <<<"$out" || true
    # When the time is up in the middle of an input, go test now and then reports
    # its own deadline as a failure. A finding names the input that it wrote.
    if [ $code -ne 0 ]; then
      if ! grep -q 'Failing input\|panic\|FAIL.*build failed' <<<"$out" && grep -q 'context deadline exceeded' <<<"$out"; then
        echo "the time was up: no finding"
      else
        exit 1
      fi
    fi
  done
done
[ "$found" -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
echo "$found fuzz targets ran for $time each without a finding"
