#!/bin/bash
# A streaming replica: copies the primary at its first start, and follows it from then on.
set -euo pipefail

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
    until pg_isready --quiet --host primary --username livefeed; do
        sleep 1
    done
    # Beside it and renamed: what is there is whole, also when this is ended half-way.
    rm -rf "$PGDATA.new"
    pg_basebackup --host primary --username livefeed --pgdata "$PGDATA.new" \
        --wal-method stream --checkpoint fast --write-recovery-conf
    rm -rf "$PGDATA"
    mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -c hot_standby_feedback=on
