#!/bin/sh
# Installs what the demo and the tests need beyond Rust, on Debian 12 and its like; does nothing when all is there.
# usage: tests/setup.sh [--no-vpn]
set -eu
cd "$(dirname "$0")/.."

case "${1-}" in
"") vpn=yes ;;
--no-vpn) vpn=no ;;
*)
	echo "usage: tests/setup.sh [--no-vpn]" >&2
	exit 2
	;;
esac

# Program or file, package that has it.
NEEDED="ip:iproute2 nft:nftables iptables:iptables conntrack:conntrack ping:iputils-ping
traceroute:traceroute socat:socat iperf3:iperf3 turnserver:coturn turnutils_natdiscovery:coturn
setpriv:util-linux sha256sum:coreutils sysctl:procps cc:build-essential
/usr/include/pcap/pcap.h:libpcap-dev"
PLUGINS=/usr/lib/ipsec/plugins/libstrongswan
if [ "$vpn" = yes ]; then
	NEEDED="$NEEDED unshare:util-linux vpnc:vpnc pptpd:pptpd pptp:pptp-linux xl2tpd:xl2tpd
/usr/sbin/pppd:ppp tcpdump:tcpdump openvpn:openvpn openssl:openssl wireguard-go:wireguard-go wg:wireguard-tools
/usr/lib/ipsec/charon:strongswan-charon swanctl:strongswan-swanctl
$PLUGINS-openssl.so:libstrongswan-standard-plugins $PLUGINS-curve25519.so:libstrongswan-extra-plugins
$PLUGINS-kernel-libipsec.so:libcharon-extra-plugins $PLUGINS-xauth-generic.so:libcharon-extauth-plugins"
fi

# These packages would have a server of their own run on this machine, now and after each start.
SERVICES="coturn openvpn pptpd xl2tpd"

# Debian keeps some programs where an ordinary user's PATH does not look.
PATH="$PATH:/usr/sbin:/sbin"

if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1; then
	as_root=sudo
else
	as_root=none
fi

packages=
for pair in $NEEDED; do
	case "$pair" in
	/*) [ ! -e "${pair%%:*}" ] || continue ;;
	*) ! command -v "${pair%%:*}" >/dev/null 2>&1 || continue ;;
	esac
	case " $packages " in
	*" ${pair##*:} "*) ;;
	*) packages="$packages ${pair##*:}" ;;
	esac
done

policy=/usr/sbin/policy-rc.d
own_policy=
state=
cleanup() {
	[ -z "$own_policy" ] || $as_root rm -f "$policy"
	[ -z "$state" ] || rm -rf "$state"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

if [ -n "$packages" ]; then
	say="apt-get install --no-install-recommends$packages"
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "setup: this machine lacks:$packages. It has no apt-get: install them with its own package manager." >&2
		exit 1
	fi
	if [ "$as_root" = none ]; then
		echo "setup: this machine lacks:$packages. As root, run: $say" >&2
		exit 1
	fi
	echo "setup: installing$packages"
	# 101: no service may be started.
	if [ ! -e "$policy" ]; then
		own_policy=yes
		printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
		$as_root chmod 755 "$policy"
	fi
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
	# shellcheck disable=SC2086 # one word for each package
	$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get -q install --yes --no-install-recommends $packages
	for service in $SERVICES; do
		case " $packages " in
		*" $service "*) ! command -v systemctl >/dev/null 2>&1 ||
			$as_root systemctl --quiet disable "$service" 2>/dev/null || true ;;
		esac
	done
fi

if ! command -v cargo >/dev/null 2>&1; then
	echo "setup: Rust is missing: see https://rustup.rs, or apt-get install rustup" >&2
	exit 1
fi
[ "$vpn" = yes ] || exit 0

# Bare ESP without the kernel's help came with strongSwan 6. Where the system's is older, that of Debian 13 is unpacked,
# not installed, with the libraries that it was built for; it runs through its own loader.
version=$(/usr/lib/ipsec/charon --version | sed -n 's/.*strongSwan U\{0,1\}\([0-9][0-9]*\)\..*/\1/p')
[ "${version:-0}" -lt 6 ] || exit 0
if [ -n "${NATD_STRONGSWAN6-}" ]; then
	folder=$NATD_STRONGSWAN6
else
	target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	folder=$target/strongswan6
fi
[ ! -x "$folder/usr/lib/ipsec/charon" ] || exit 0

SUITE=trixie
UNPACKED="strongswan-charon strongswan-libcharon libstrongswan libstrongswan-standard-plugins
libstrongswan-extra-plugins libcharon-extra-plugins libcharon-extauth-plugins strongswan-swanctl
libc6 libgcc-s1 libssl3t64 libsystemd0 libcap2 zlib1g libzstd1 libgmp10"
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
	awk '$2 == "Debian" { print $1; exit }')
if [ -z "$mirror" ]; then
	echo "setup: strongSwan here is older than 6, and apt knows no Debian mirror to take a newer one from." >&2
	echo "setup: unpack Debian 13's ($UNPACKED) into a folder and name it in NATD_STRONGSWAN6" >&2
	exit 1
fi
echo "setup: unpacking strongSwan 6 into $folder"
state=$(mktemp -d)
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages" "$state/root"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $SUITE main" >"$state/sources.list"
apt() {
	apt-get -q -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}
apt update
names=
for package in $UNPACKED; do
	names="$names $package/$SUITE"
done
# shellcheck disable=SC2086 # one word for each package
(cd "$state/packages" && apt download $names)
for package in "$state"/packages/*.deb; do
	dpkg-deb -x "$package" "$state/root"
done
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.part"
cp -a "$state/root" "$folder.part"
rm -rf "$folder"
mv "$folder.part" "$folder"
