#!/bin/bash
# Run once by the primary's first start: lets the replica in.
set -euo pipefail
echo "host replication livefeed all scram-sha-256" >> "$PGDATA/pg_hba.conf"
