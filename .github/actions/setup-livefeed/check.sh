#!/usr/bin/env bash
# Checks each file of FIXTURES, one path a line, and fails when any line of any of them is wrong.
set -euo pipefail

wrong=0
while IFS= read -r file; do
    [[ -n "$file" ]] || continue
    echo "$file:"
    if ! "$RUNNER_TEMP/livefeed-commands/livefeed" check "$file"; then
        echo "::error file=$file::livefeed would refuse some of its updates: see the log"
        wrong=1
    fi
done <<< "$FIXTURES"
exit "$wrong"
