#!/usr/bin/env bash
# Runs every fuzz target for the time given (default 60s), one on each processor.
# usage: scripts/fuzz.sh [TIME] [PACKAGE…]
set -euo pipefail
if [ "${1-}" = --one ]; then
  time=$2 pkg=${3%:*} target=${3#*:}
  out=$(go test -run '^$' -parallel 1 -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 50x "$pkg" 2>&1) && code=0 || code=$?
  out="== $pkg $target ($time)"$'\n'$(grep -v '^fuzz: elapsed' <<<"$out" || true)
  # When the time is up in the middle of an input, go test now and then reports
  # its own deadline as a failure. A finding names the input that it wrote.
  if [ $code -ne 0 ] && ! grep -q 'Failing input\|panic\|FAIL.*build failed' <<<"$out" && grep -q 'context deadline exceeded' <<<"$out"; then
    out+=$'\n''the time was up: no finding' code=0
  fi
  echo "$out"
  [ $code -eq 0 ] || exit 255 # xargs starts no further one
  exit 0
fi
time=${1:-60s}
shift || true
[ $# -gt 0 ] || set -- ./...
targets=()
while read -r pkg dir; do
  for target in $(grep -hoE '^func (Fuzz[A-Za-z0-9_]*)' "$dir"/*_test.go 2>/dev/null | awk '{print $2}' | sort -u || true); do
    targets+=("$pkg:$target")
  done
done < <(go list -f '{{.ImportPath}} {{.Dir}}' "$@")
[ ${#targets[@]} -gt 0 ] || { echo "no fuzz targets found" >&2; exit 1; }
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -n 1 "$0" --one "$time" || { echo "a fuzz target failed: see above" >&2; exit 1; }
echo "${#targets[@]} fuzz targets ran for $time each without a finding"
