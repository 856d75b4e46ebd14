#!/usr/bin/env bash
# Starts a whole livefeed in the background, and returns when it serves. Later steps find `livefeed`,
# which knows the stack, and `livefeed-stop` on their path.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
python="${PYTHON:-python3}"
data="$RUNNER_TEMP/livefeed"
commands="$RUNNER_TEMP/livefeed-commands"
mkdir -p "$data" "$commands"

cat > "$commands/livefeed" <<SCRIPT
#!/usr/bin/env bash
export LIVEFEED_DATA="$data" PYTHONPATH="$root:$root/clients/python" PYTHONSAFEPATH=1
exec "$root/.venv/bin/python" -m livefeed.cli "\$@"
SCRIPT
cat > "$commands/livefeed-stop" <<SCRIPT
#!/usr/bin/env bash
# Drains and stops the stack, and returns when it has ended.
set -euo pipefail
pid="\$(cat "$data/up.pid")"
kill "\$pid" 2>/dev/null || exit 0
for ((tenth = 0; tenth < 600; tenth++)); do
    kill -0 "\$pid" 2>/dev/null || exit 0
    sleep 0.1
done
echo "livefeed has not ended within 60 s; its log: $data/up.log" >&2
exit 1
SCRIPT
chmod +x "$commands/livefeed" "$commands/livefeed-stop"

# It installs the pinned requirements, once.
"$python" "$root/dev" --version
nohup "$commands/livefeed" up --data "$data" --port "$PORT" > "$data/up.log" 2>&1 < /dev/null &
echo "$!" > "$data/up.pid"

# The last line is that it is ready, and where.
for ((tenth = 0; tenth < 600; tenth++)); do
    if ready="$(grep --max-count 1 '^livefeed: ready' "$data/up.log")"; then
        break
    fi
    if ! kill -0 "$(cat "$data/up.pid")" 2>/dev/null; then
        echo "::error::livefeed does not start: $(tail -n 5 "$data/up.log" | tr '\n' ' ')"
        exit 1
    fi
    sleep 0.1
done
if [[ -z "$ready" ]]; then
    echo "::error::livefeed was not ready within 60 s: $(tail -n 5 "$data/up.log" | tr '\n' ' ')"
    exit 1
fi
echo "$ready"

read -ra words <<< "$ready"
{
    echo "url=http://127.0.0.1:$PORT"
    echo "nats-url=${words[-1]}"
} >> "$GITHUB_OUTPUT"
echo "$commands" >> "$GITHUB_PATH"
