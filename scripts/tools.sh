#!/usr/bin/env bash
# What tests use beside Python, where it is not there yet: a Chromium for the playground, Prometheus for the alert rules,
# nginx for several replicas. Without them those tests are skipped, but not in CI.
set -euo pipefail
missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
  || missing+=(chromium)
command -v promtool >/dev/null || missing+=(prometheus)
command -v nginx >/dev/null || missing+=(nginx)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]} with apt-get"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi
echo "Not there: ${missing[*]}. The tests that use them are skipped." >&2
echo "They are packages of Debian (sudo apt-get install ${missing[*]})." >&2
[ -z "${CI:-}" ]
