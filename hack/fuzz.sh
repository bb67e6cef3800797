#!/bin/bash
# Runs every fuzz test of the repository, one after the other, for the time given:
#   hack/fuzz.sh 20s
set -euo pipefail

time=${1:?usage: hack/fuzz.sh TIME}
found=0
while IFS=: read -r file line; do
	name=${line#func }
	name=${name%%(*}
	found=1
	echo "== ${file%/*} $name"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "${file%/*}"
done < <(grep -rE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' . | sort)
if [ "$found" = 0 ]; then
	echo "no fuzz tests"
fi
