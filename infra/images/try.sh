#!/usr/bin/env bash
# Starts the whole stack, publishes, reads back through the balancer, ends a NATS server, reads again,
# and removes everything. The image is LIVEFEED_IMAGE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

compose=(docker compose --file compose.yaml)
trap '"${compose[@]}" down --volumes --timeout 30' EXIT

livefeed() {
    "${compose[@]}" run --rm --no-deps -T livefeed "$@"
}

update() {
    printf '{"updateId":"%s","userId":"alice","feedType":"home","updateType":"new_content",' "$1"
    printf '"content":{"id":"%s"},"priority":"high","timestamp":"%s"}\n' "$1" "$(date -u +%FT%T.%6NZ)"
}

shown() {
    for ((second = 0; second < 30; second++)); do
        if livefeed tail --url http://balancer:8000 --user alice --feeds home \
            --until-caught-up --json | grep "\"$1\"" > /dev/null; then
            return 0
        fi
        sleep 1
    done
    echo "$1 was not shown within 30 s" >&2
    return 1
}

# It returns when what the gateways wait for is there.
"${compose[@]}" up --detach
update post-1 | livefeed publish -
shown post-1
"${compose[@]}" kill nats-2
update post-2 | livefeed publish -
shown post-2
echo "published and shown, with three NATS servers and with two"
