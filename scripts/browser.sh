#!/bin/sh
# Chromium for the tests of the web page: Debian's package, installed where that is possible without asking.
# Exits with 1 if there is none in the end; the tests that need it are skipped then.
find_it() { command -v chromium || command -v chromium-browser; }

find_it >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium for the tests of the web page"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
        >/dev/null 2>&1
    find_it >/dev/null && exit 0
fi
echo "there is no Chromium: the tests of the web page are skipped (sudo apt install -y chromium)" >&2
exit 1
