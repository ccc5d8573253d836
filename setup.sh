#!/bin/sh
# From a bare Debian 12 to a running Warmfleet: installs what the wanted Makefile target needs, then runs it.
# Usage: ./setup.sh [TARGET …]      (default: up)
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- up

packages=""
command -v make >/dev/null || packages="$packages make"
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3 python3-venv"
case " $* " in
*" test "* | *" check "* | *" bench "* | *" picture "*)
    [ -x /usr/bin/chromium ] || packages="$packages chromium"
    # Playwright's own Node is linked against it.
    /sbin/ldconfig -p | grep -q libatomic || packages="$packages libatomic1"
    ;;
esac
case " $* " in
# promtool and a real Prometheus, for the tests of rules and dashboards.
*" test "* | *" check "*) command -v promtool >/dev/null || packages="$packages prometheus" ;;
esac
case " $* " in
# A library that moves clocks is built for the run; a second host is a network namespace.
*" chaos "*)
    command -v cc >/dev/null || packages="$packages gcc libc6-dev"
    command -v ip >/dev/null || packages="$packages iproute2"
    ;;
esac
if [ -n "$packages" ]; then
    sudo=""
    if [ "$(id -u)" != 0 ]; then
        sudo="sudo"
        command -v sudo >/dev/null || { echo "as root, install these first: apt-get install$packages" >&2; exit 1; }
    fi
    echo "installing Debian packages:$packages"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names is meant to be split
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
fi
exec make "$@"
