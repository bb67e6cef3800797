#!/bin/bash
# Runs the tests that have a full size at that size. The race detector, which makes
# them five times as long, watches the same tests at their small size in `make test`.
# A test has one when its file mentions MAQET_SOAK; such files hold no other tests.
# Then every fuzz test runs for FUZZTIME (1m).
set -euo pipefail

export MAQET_SOAK=1
failed=0
for dir in $(grep -rl MAQET_SOAK --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do
	tests=$(grep -l MAQET_SOAK "$dir"/*_test.go | xargs sed -nE 's/^func (Test[A-Za-z0-9_]*)\(.*/\1/p' | grep -vx TestMain | paste -sd'|' || true)
	echo "== $dir"
	# A helper file has no test of its own; then the whole package is asked.
	go test -count=1 -timeout 40m -run "^(${tests:-.*})\$" "$dir" || failed=1
done
hack/fuzz.sh "${FUZZTIME:-1m}" || failed=1
exit "$failed"
