#!/bin/bash
# Installs the Debian packages that are missing for one purpose:
#   hack/install-deps.sh demo    to run guests
#   hack/install-deps.sh test    also to run the tests
# Only root can install; for anybody else the packages are named and the exit is 1.
set -euo pipefail

purpose=${1:?usage: hack/install-deps.sh demo|test}

# Each line: a command that must exist, and the package it comes in.
needs='
qemu-system-x86_64 qemu-system-x86
qemu-img           qemu-utils
'
case $purpose in
demo) ;;
test) needs+='
gcc                gcc
git                git
ip                 iproute2
dbus-daemon        dbus-daemon
swtpm              swtpm
useradd            passwd
systemd-analyze    systemd
' ;;
*)
	echo "install-deps: no purpose \"$purpose\"; use demo or test" >&2
	exit 3
	;;
esac

if ! command -v go >/dev/null; then
	echo "install-deps: the go command is missing; install Go 1.26 or newer from https://go.dev/dl/" >&2
	exit 1
fi

missing=()
while read -r tool package; do
	if [ -n "$tool" ] && ! command -v "$tool" >/dev/null; then
		missing+=("$package")
	fi
done <<<"$needs"
# The race detector links against the C library.
if [ "$purpose" = test ] && [ ! -e /usr/include/stdlib.h ]; then
	missing+=(libc6-dev)
fi
# Firmware is no command.
if [ "$purpose" = test ] && [ ! -e /usr/share/OVMF/OVMF_CODE_4M.ms.fd ]; then
	missing+=(ovmf)
fi
# Debian has virtiofsd outside of PATH, and in a package of its own since release 13.
if [ "$purpose" = test ] && [ ! -x /usr/lib/qemu/virtiofsd ] && [ ! -x /usr/libexec/virtiofsd ]; then
	if apt-cache show virtiofsd >/dev/null 2>&1; then
		missing+=(virtiofsd)
	else
		missing+=(qemu-system-common)
	fi
fi
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

if ! command -v apt-get >/dev/null; then
	echo "install-deps: missing: ${missing[*]} (Debian's names); install what your system calls them" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "install-deps: missing packages; run: sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -q -y --no-install-recommends "${missing[@]}")
# Without package lists, or with lists naming files the archive no longer has, the
# first attempt fails at once and the lists are what is to be renewed.
if ! "${install[@]}" >/dev/null 2>&1; then
	apt-get update -q
	"${install[@]}"
fi
