#!/usr/bin/env bash
# Installs the programs of scripts/tools.txt, or of the list given as $1, that
# are missing, if this may be done here (root and apt-get); else it names them
# and goes on: the tests that need them are then reported as skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
missing=() packages=()
while read -r program package; do
  case "$program" in ''|'#'*) continue ;; esac
  { command -v "$program" >/dev/null 2>&1 || [ -f "$program" ]; } && continue # a program, or a file
  missing+=("$program")
  packages+=("$package")
done <"${1:-$here/tools.txt}"
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "not installed, and not installable here (needs root and apt-get): ${missing[*]}" >&2
  exit 0
fi
# A server package starts its daemon when it is installed; policy-rc.d keeps it
# from that. One that stands already is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
echo "installing ${packages[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
install() { apt-get install -y -q --no-install-recommends "${packages[@]}" >>"$log" 2>&1; }
install || { apt-get update -q >>"$log" 2>&1 && install; } || { cat "$log" >&2; exit 1; }
rm -f "$log"
