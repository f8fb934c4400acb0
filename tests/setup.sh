#!/bin/sh
# Installs what the demo and the tests need beyond Rust, on Debian 12 and its like; does nothing when all is there.
# usage: tests/setup.sh
set -eu

# Program, package that has it.
NEEDED="ip:iproute2 nft:nftables iptables:iptables conntrack:conntrack ping:iputils-ping
traceroute:traceroute socat:socat iperf3:iperf3 turnserver:coturn turnutils_natdiscovery:coturn
setpriv:util-linux sha256sum:coreutils sysctl:procps cc:build-essential"

# Debian keeps some of them where an ordinary user's PATH does not look.
PATH="$PATH:/usr/sbin:/sbin"

packages=
for pair in $NEEDED; do
	command -v "${pair%%:*}" >/dev/null 2>&1 && continue
	case " $packages " in
	*" ${pair##*:} "*) ;;
	*) packages="$packages ${pair##*:}" ;;
	esac
done

if [ -n "$packages" ]; then
	say="apt-get install --no-install-recommends$packages"
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "setup: this machine lacks:$packages. It has no apt-get: install them with its own package manager." >&2
		exit 1
	fi
	if [ "$(id -u)" -eq 0 ]; then
		as_root=
	elif command -v sudo >/dev/null 2>&1; then
		as_root=sudo
	else
		echo "setup: this machine lacks:$packages. As root, run: $say" >&2
		exit 1
	fi
	echo "setup: installing$packages"
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
	# coturn must not start a server of its own on this machine.
	# shellcheck disable=SC2086 # one word for each package
	$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get -q install --yes --no-install-recommends $packages
fi

if ! command -v cargo >/dev/null 2>&1; then
	echo "setup: Rust is missing: see https://rustup.rs, or apt-get install rustup" >&2
	exit 1
fi
