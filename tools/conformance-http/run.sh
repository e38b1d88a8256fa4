#!/usr/bin/env bash
# Installs the public HTTP cache test suite at its pinned version into
# bin/conformance-http, and runs it twice against bin/perigee; see run.mjs.
# Usage: run.sh [--id TEST] [--run defaults|conformance]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
"$root/scripts/install-tools.sh" "$here/tools.txt"
for program in node npm; do
  command -v "$program" >/dev/null || { echo "conformance-http: $program is missing: install the Debian package of tools/conformance-http/tools.txt" >&2; exit 1; }
done
suite=$root/bin/conformance-http
mkdir -p "$suite"
if ! cmp -s "$here/package.json" "$suite/package.json" || [ ! -d "$suite/node_modules" ]; then
  rm -rf "$suite"
  mkdir -p "$suite"
  cp -r "$here/nothing" "$suite/"
  cp "$here/package.json" "$suite/package.json.new"
  (cd "$suite" && mv package.json.new package.json &&
    npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || { rm -rf "$suite"; exit 1; }
fi
exec node --no-warnings "$here/run.mjs" "$suite" "$@"
