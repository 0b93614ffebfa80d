#!/usr/bin/env bash
# A Chromium for the tests and pictures of the playground, where there is none yet. Tests do without one, but not in CI.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing chromium with apt-get"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
  exit 0
fi
echo "There is no chromium on the PATH, so the playground is not driven in a browser." >&2
echo "Install the package chromium of your system (Debian: sudo apt-get install chromium)." >&2
[ -z "${CI:-}" ]
