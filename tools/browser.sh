#!/usr/bin/env bash
# Install Chromium, in which the tests open the HTML pages, where there is none and this user may. Otherwise those tests
# are skipped, and the last lines of `make test` say so.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  ! command -v "$name" > /dev/null || exit 0
done
[ "$(id -u)" = 0 ] || exit 0
if command -v apt-get > /dev/null; then
  echo "test: installing Chromium for the tests of HTML pages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -qqy --no-install-recommends chromium > /dev/null ||
    echo "test: Chromium could not be installed (Ubuntu has it as a snap only)"
elif command -v dnf > /dev/null; then
  echo "test: installing Chromium for the tests of HTML pages"
  dnf install -qy chromium || echo "test: Chromium could not be installed"
fi
