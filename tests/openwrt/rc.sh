#!/bin/sh
# Stands in for OpenWrt's rc.common with its uci and procd functions, for tests/openwrt.rs: runs an init script and
# writes what it tells procd to $IPKG_INSTROOT/calls, one call a line, each argument in brackets.
# usage: rc.sh INIT-SCRIPT start|reload|stop
# The init script calls these functions; eval reads some of the variables.
# shellcheck shell=dash disable=SC2034,SC2317
initscript=$1
action=$2

record() {
	local call="$1"
	shift
	local argument
	for argument; do
		call="$call [$argument]"
	done
	printf '%s\n' "$call" >>"$IPKG_INSTROOT/calls"
}

# uci: a file in its format is a shell script in these three words, as long as it quotes as the shell does. Values
# go into variables ${uci_into}_SECTION_OPTION.
config() {
	uci_count=$((uci_count + 1))
	uci_section=${2:-${uci_package}_$uci_count}
	eval "${uci_into}_SECTIONS=\"\$${uci_into}_SECTIONS $uci_section\""
	eval "${uci_into}_${uci_section}_TYPE=\$1"
}

option() {
	eval "${uci_into}_${uci_section}_$1=\$2"
}

list() {
	eval "${uci_into}_${uci_section}_$1=\"\${${uci_into}_${uci_section}_$1:+\$${uci_into}_${uci_section}_$1 }\$2\""
}

uci_read() {
	uci_into=$1 uci_package=$2 uci_count=0
	local variable
	for variable in $(set | sed -n "s/^\(${uci_into}_[A-Za-z0-9_]*\)=.*/\1/p"); do
		unset "$variable"
	done
	eval "${uci_into}_SECTIONS="
	# shellcheck source=/dev/null
	[ ! -f "$IPKG_INSTROOT/etc/config/$2" ] || . "$IPKG_INSTROOT/etc/config/$2"
}

config_load() {
	uci_read CONFIG "$1"
}

config_get() {
	eval "$1=\${CONFIG_${2}_$3:-\$4}"
}

config_get_bool() {
	local given
	config_get given "$2" "$3" "$4"
	boolean "$given" || boolean "$4"
	eval "$1=\$valid"
}

config_foreach() {
	local section
	for section in $CONFIG_SECTIONS; do
		eval "[ \"\$CONFIG_${section}_TYPE\" = \"\$2\" ]" && "$1" "$section"
	done
	return 0
}

# $1 as 0 or 1, in `valid`.
boolean() {
	case "$1" in
	1 | on | true | yes | enabled) valid=1 ;;
	0 | off | false | no | disabled) valid=0 ;;
	*) return 1 ;;
	esac
}

# Is $2 a value of the type $1? Leaves it in `valid`.
validate() {
	local word words
	case "$1" in
	bool) boolean "$2" ;;
	string | "list(string)") valid=$2 ;;
	"or("*)
		words=${1#or(}
		words=${words%)}
		local IFS=,
		for word in $words; do
			[ "$word" = "\"$2\"" ] && valid=$2 && return 0
		done
		return 1
		;;
	*)
		echo "rc.sh: the type $1 is unknown" >&2
		exit 3
		;;
	esac
}

uci_load_validate() {
	local _package="$1" _name="$3" _function="$4" _result=0 _tuple _option _type _default _value
	shift 4
	for _tuple; do
		eval "local ${_tuple%%:*}"
	done
	if [ -z "$_name" ]; then
		record validation "$_package" "$@"
		return 0
	fi
	uci_read VALID "$_package"
	for _tuple; do
		_option=${_tuple%%:*}
		_type=${_tuple#*:}
		_default=${_type#"${_type%%:*}"}
		_type=${_type%%:*}
		eval "_value=\${VALID_${_name}_$_option}"
		_value=${_value:-${_default#:}}
		if [ -z "$_value" ]; then
			unset "$_option"
		elif validate "$_type" "$_value"; then
			eval "$_option=\$valid"
		else
			unset "$_option"
			_result=255
		fi
	done
	"$_function" "$_name" "$_result"
}

for call in procd_open_instance procd_close_instance procd_set_param procd_open_data procd_close_data \
	json_add_array json_close_array json_add_object json_close_object json_add_string \
	procd_add_reload_trigger procd_add_reload_interface_trigger procd_add_raw_trigger procd_set_config_changed; do
	eval "$call() { record $call \"\$@\"; }"
done
# OpenWrt 24.10 and later have this one.
[ -n "$OLD_PROCD" ] || eval 'procd_add_reload_data_trigger() { record procd_add_reload_data_trigger "$@"; }'

# Functions, since busybox would not look for programs in PATH.
logger() {
	# -t natd -p PRIORITY -- TEXT
	printf '%s %s\n' "${4#daemon.}" "$6" >>"$IPKG_INSTROOT/log"
}

sleep() {
	record sleep
}

# procd ends natd, which takes a moment.
ubus() {
	record ubus "$@"
	echo 1 >"$IPKG_INSTROOT/status"
}

procd_add_validation() {
	"$@" '' ''
}

# shellcheck source=/dev/null
. "$initscript"

start() {
	start_service
	service_triggers
	service_started
}

stop() {
	ubus call service delete natd
	service_stopped
}

case "$action" in
start | reload) start ;;
stop) stop ;;
esac
