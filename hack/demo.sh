#!/bin/bash
# The demo: guests are brought up, changed, snapshotted and stopped from YAML.
#   hack/demo.sh up      run it; the guests stay up
#   hack/demo.sh down    stop its guests
# Everything lies in build/demo: the manifests (a copy of examples/, because the
# demo edits them), maqet's state and its sockets. No folder of the system is used.
set -euo pipefail

cd "$(dirname "$0")/.."
demo=build/demo
vms=$demo/vms
maqet=bin/maqet
export MAQET_STATE_DIR=$PWD/$demo/state
export MAQET_RUN_DIR=$PWD/$demo/run
# A socket's path may have 107 bytes; in a deep checkout the sockets go elsewhere.
if [ ${#MAQET_RUN_DIR} -gt 70 ]; then
	MAQET_RUN_DIR=/tmp/maqet-demo-$(id -u)-$(cksum <<<"$PWD" | cut -d' ' -f1)
fi

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' plain=$'\e[0m'
else
	bold='' plain=''
fi
heading() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }

# show CODE COMMAND... prints the command, runs it, and insists on its exit code.
show() {
	local want=$1 code=0
	shift
	printf '%s$ %s%s\n' "$bold" "$*" "$plain"
	"$@" || code=$?
	if [ "$code" != "$want" ]; then
		echo "demo: exit code $code, expected $want; the guests are left as they are, stop them by: make demo-stop" >&2
		exit 1
	fi
}

# edit FILE SED-EXPRESSION changes a manifest and shows what changed.
edit() {
	cp "$vms/$1" "$demo/before"
	sed -i -E "$2" "$vms/$1"
	if diff -U0 --label "$1" --label "$1, edited" "$demo/before" "$vms/$1"; then
		echo "demo: editing $1 changed nothing" >&2
		exit 1
	fi
}

down() {
	if [ ! -d "$vms" ]; then
		return 0
	fi
	if [ ! -x "$maqet" ]; then
		echo "demo: $maqet is missing but guests of an earlier demo may run; run: make build demo-stop" >&2
		exit 1
	fi
	# By name, not by -f: the files may have been edited into something invalid since.
	local names
	names=$("$maqet" get vm -o name | sed 's,.*/,,')
	if [ -n "$names" ]; then
		# shellcheck disable=SC2086 # One argument per name; names hold no spaces.
		"$maqet" delete $names --delete-disks
	fi
	rm -rf "$demo" "$MAQET_RUN_DIR"
}

# choose_accelerator boots the tiny guest under KVM, because a /dev/kvm that opens
# may still hang Linux, and writes the accelerator only into the demo's copies.
choose_accelerator() {
	local why
	if [ ! -e /dev/kvm ]; then
		say 'no /dev/kvm here: QEMU emulates (TCG), which is slower and changes nothing else'
	elif why=$(go run ./e2e/cmd/mkguest -o build/guest -boots kvm -timeout 10s 2>&1); then
		say "KVM: $why"
		grep -l '^kind: VirtualMachine' "$vms"/*.yaml | xargs sed -i '/^spec:/a\  emulator: {accelerators: [kvm]}'
	else
		say 'KVM is here but does not run Linux, so QEMU emulates (TCG). The test said:'
		say "${why%%$'\n'*}"
	fi
}

up() {
	heading 'Clear away an earlier demo'
	down
	mkdir -p -m 0700 "$demo"
	mkdir "$vms"
	cp -r examples/*.yaml examples/images "$vms"
	sed -i 's#\.\./build/guest/#../../guest/#' "$vms"/*.yaml

	heading 'Choose the accelerator by really booting Linux'
	choose_accelerator

	heading 'Up: the folder says what should be'
	show 0 ls "$vms"
	show 2 "$maqet" plan -f "$vms"
	show 0 "$maqet" apply -f "$vms" --wait
	show 0 "$maqet" get vm

	heading 'Again: nothing to do'
	show 0 "$maqet" apply -f "$vms" --wait

	heading 'Change: edit the file. What needs a restart waits for a word'
	edit web.yaml 's/size: 128Mi/size: 192Mi/'
	show 2 "$maqet" apply -f "$vms"
	show 0 "$maqet" apply -f "$vms" --allow-restart --wait

	heading 'Snapshot: an object like any other'
	cat >"$vms/web-after-change.yaml" <<-'YAML'
		apiVersion: maqet.io/v1alpha1
		kind: Snapshot
		metadata: {name: after-change}
		spec: {virtualMachine: web, method: Full}
	YAML
	show 0 cat "$vms/web-after-change.yaml"
	show 0 "$maqet" apply -f "$vms" --wait
	show 0 "$maqet" snapshot list web
	show 0 "$maqet" snapshot list db

	heading 'Stop: db should be off'
	edit db.yaml 's/^spec:/spec:\n  powerState: Stopped/'
	show 0 "$maqet" apply -f "$vms" --wait
	show 0 "$maqet" get vm

	heading 'What web said on its serial line'
	printf '%s$ %s logs web | tail -n 5%s\n' "$bold" "$maqet" "$plain"
	"$maqet" logs web | tail -n 5

	heading 'Yours now'
	say 'web answers on http://127.0.0.1:18080/ ; edit the files and apply again.'
	say "export MAQET_STATE_DIR=$MAQET_STATE_DIR MAQET_RUN_DIR=$MAQET_RUN_DIR"
	say 'To stop the guests and remove their disks:'
	printf '%s\n' "make demo-stop    # or: $maqet --state-dir $MAQET_STATE_DIR --run-dir $MAQET_RUN_DIR delete web db greeting --delete-disks"
}

case ${1:-} in
up) up ;;
down) down ;;
*)
	echo "usage: hack/demo.sh up|down" >&2
	exit 3
	;;
esac
