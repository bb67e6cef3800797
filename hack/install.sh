#!/bin/bash
# Installs maqet and its systemd units, or removes just these files again:
#   hack/install.sh install|uninstall BINARY PREFIX DESTDIR
# It enables and starts nothing, and touches neither /etc nor /var: state, disks
# and settings are the administrator's. Running guests are not concerned.
set -euo pipefail

usage='usage: hack/install.sh install|uninstall BINARY PREFIX DESTDIR'
action=${1:?$usage} binary=${2:?$usage} prefix=${3:?$usage} destdir=${4-}
units=$(dirname "$0")/../examples/gitops/systemd

fail() {
	echo "install: $*" >&2
	exit 1
}

# The prefix becomes a part of command lines that systemd reads.
[[ $prefix =~ ^/[A-Za-z0-9/._+-]*$ ]] || fail "PREFIX \"$prefix\" must be an absolute path of letters, digits and / . _ + -"
prefix=${prefix%/}

# Each line: a unit file of this repository, and where it goes below PREFIX.
files='
maqet.service                         lib/systemd/system/maqet.service
maqet-guests-shutdown.service         lib/systemd/system/maqet-guests-shutdown.service
maqet-sync.service                    lib/systemd/system/maqet-sync.service
maqet-sync.timer                      lib/systemd/system/maqet-sync.timer
maqet-sync.sysusers                   lib/sysusers.d/maqet-sync.conf
user/maqet.service                    lib/systemd/user/maqet.service
user/maqet-guests-shutdown.service    lib/systemd/user/maqet-guests-shutdown.service
'

# put SOURCE MODE DESTINATION replaces a file in one step, so that a maqet or a
# systemd that reads it meanwhile finds the old one or the new one.
put() {
	mkdir -p "$(dirname "$3")"
	install -m "$2" "$1" "$3.new"
	mv -f "$3.new" "$3"
}

install_all() {
	[ -x "$binary" ] || fail "$binary is missing; run: make build"
	put "$binary" 0755 "$destdir$prefix/bin/maqet"
	local from to
	rewritten=$(mktemp)
	trap 'rm -f "$rewritten"' EXIT
	while read -r from to; do
		[ -n "$from" ] || continue
		sed "s|/usr/local/bin/maqet|$prefix/bin/maqet|" "$units/$from" >"$rewritten"
		put "$rewritten" 0644 "$destdir$prefix/$to"
	done <<<"$files"
	echo "installed maqet and its units below $destdir$prefix; next, as root: systemctl daemon-reload"
}

uninstall_all() {
	local from to
	rm -f "$destdir$prefix/bin/maqet"
	while read -r from to; do
		[ -n "$from" ] || continue
		rm -f "$destdir$prefix/$to"
	done <<<"$files"
	echo "removed maqet and its units from $destdir$prefix; machines run on, and disks, state and settings stay"
}

case $action in
install) install_all ;;
uninstall) uninstall_all ;;
*) fail "no action \"$action\"; $usage" ;;
esac
