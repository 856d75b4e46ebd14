"""The budget: every bound of livefeed, with its unit, in one place.

`docs/limits.md` is printed from this module and compared with it by a test.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# NATS and the update.
NATS_PAYLOAD_BYTES_MAX: Final = 1 * MIB
"""Largest NATS message; the server's `max_payload`."""
UPDATE_BYTES_MAX: Final = 512 * KIB
"""Largest update with its user list."""
AUDIENCE_USERS_MAX: Final = 10_000
"""Most users in one update's `audience.users`."""
UPDATE_ITEMS_MAX: Final = 100
"""Most items in one update's `content`."""
ITEM_BYTES_MAX: Final = 64 * KIB
"""Largest JSON of one item's content."""
ITEM_DEPTH_MAX: Final = 64
"""How deeply one item's content may be nested."""
ID_CHARACTERS_MAX: Final = 128
"""Longest user id, content id and update id."""
FUTURE_SECONDS_MAX: Final = 300
"""How far ahead of the clock an update's timestamp may be."""

# Lanes.
PARTITIONS: Final = 16
"""Partitions of each lane; fixed for ever."""
LANE_MESSAGE_CHANNELS_MAX: Final = 1_000
"""Most channels in one lane message."""
LANE_MESSAGE_ROWS_MAX: Final = 1_000
"""Most rows (channels × items) that one lane message makes."""
LANE_MESSAGE_BYTES_MAX: Final = 512 * KIB
"""Largest lane message."""
FLUSH_ROWS_MAX: Final = 2_000
"""Most rows in one flush to Postgres."""
FLUSH_BYTES_MAX: Final = 4 * MIB
"""Most bytes of bodies in one flush to Postgres."""
STREAM_MESSAGE_BYTES_MAX: Final = 768 * KIB
"""Largest message of a stream, with headers: a dead letter's headers must fit beside it."""
LIVE_MESSAGE_BYTES_MAX: Final = 256 * KIB
"""Largest live message; a larger one carries the heads only."""
AGED_SECONDS: Final = 20
"""An update older than this is due at once, whatever its lane's window."""

# The log.
CHANNEL_ITEMS_MAX: Final = 1_000
"""Items that a channel keeps; older ones fall below the floor."""
CHANNEL_AGE_SECONDS_MAX: Final = 30 * 86_400
"""How long a channel keeps an entry; older ones fall below the floor."""
TRIM_CHANNELS_MAX: Final = 500
"""Channels that one step of trimming looks at."""
TRIM_OLD_ENTRIES_MAX: Final = 200
"""Entries of one channel that fall for their age in one step; the next run takes the next ones."""
RETAIN_ROWS_MAX: Final = 2_000
"""Rows that one statement of `retain` deletes or marks: a writer never waits for more."""
RETAIN_PAGES_MAX: Final = 100
"""Pages of a feed source that one statement of `retain` deletes: a page may be large."""
BODY_AGE_SECONDS_MIN: Final = 3_600
"""A younger body is not collected: a flush writes its bodies before the entries that need them."""
TRIM_SETTLED_SECONDS: Final = 3_600
"""A younger entry stays, however many came after it: an older update of its item may still be on
its way, and would come back from the dead."""
BODY_KEPT_SECONDS: Final = 1_800
"""A flush that uses an older body again makes it young first; half of the age above, so that a
flush which has just not done so has as long to commit its entries."""
STREAM_KEPT_SHARE_MAX: Final = 0.5
"""Above this share of its bytes FEED_UPDATES keeps nothing that was handled."""
GATEWAY_SILENT_SECONDS_MAX: Final = 300.0
"""What is left of a gateway that was silent for longer is deleted."""
BODY_COLLECT_SECONDS: Final = 3_600
"""How often bodies are collected, on average: it walks over every entry."""
PAGE_ENTRIES_MAX: Final = 200
"""Most entries of one channel in one catch-up page."""
PAGE_BYTES_MAX: Final = 960 * KIB
"""Most bytes of one channel in one catch-up page; at least one entry is always read. With places
and names its frame is below 1 MiB, the most that WebSocket libraries take unless told otherwise."""
GATHERED_CHANNELS_MAX: Final = 256
"""Most channels in one gathered read."""
DEAD_LETTER_AGE_SECONDS_MAX: Final = 21 * 86_400
"""How long the dead-letter queue keeps a message; less than the log."""
RECONCILED_PLACES_MAX: Final = 5_000
"""Places of updates that `reconcile` asks the log for in one statement."""
RECONCILED_LETTERS_MAX: Final = 1_000_000
"""Updates of dead letters that `reconcile` can tell from missing ones."""
RECONCILE_WAIT_SECONDS: Final = 30.0
"""How long `reconcile` waits for the lanes: more than the longest window."""

# The gateway.
INBOUND_FRAME_BYTES_MAX: Final = 16 * KIB
"""Largest frame from a client."""
CONNECTION_FEEDS_MAX: Final = 64
"""Most feeds of one connection."""
OUTBOX_BYTES_MAX: Final = 1 * MIB
"""Bytes waiting for one connection; above it the connection only remembers that it is behind."""
OUTBOX_BYTES_LIMIT: Final = 16 * MIB
"""Bytes waiting for one connection above which it is closed with "come back"."""
SEND_BUFFER_BYTES: Final = 128 * KIB
"""What the system may hold for one connection beside that: with more, a client that does not read
is seen late."""
UNREAD_PONG_BYTES_MAX: Final = 64 * KIB
"""Pongs for a client that does not read; above it the connection is cut."""
CLOSING_SECONDS_MAX: Final = 3.0
"""How long a connection that was closed may take to read what says so; then it is cut."""
UNREAD_SECONDS_MAX: Final = 10.0
"""How long a client over HTTP may read nothing of an answer; then it is cut."""
REQUEST_HEAD_SECONDS_MAX: Final = 10.0
"""How long a request may take until its head is there, from the connect or its first byte on."""
REQUEST_HEAD_BYTES_MAX: Final = 32 * KIB
"""Largest head of a request."""
REQUEST_LINE_BYTES_MAX: Final = 8_000
"""Longest URL, and longest header with its name."""
REQUEST_HEADERS_MAX: Final = 100
"""Most headers of a request."""
INBOUND_BYTES_PER_SECOND: Final = 64 * KIB
"""What one connection may send, on average."""
INBOUND_BURST_BYTES: Final = 256 * KIB
"""What it may send at once."""
INBOUND_COST_BYTES: Final = 128
"""What each frame, and each piece in which bytes arrive, costs beside its bytes: an empty one is
work too."""
INBOUND_FRAGMENTS_MAX: Final = 64
"""Most fragments of one message from a client."""
INBOUND_MESSAGES_MAX: Final = 16
"""Messages of a client that wait to be looked at; with more it is not read from for a while."""
TURN_CHANNELS_MAX: Final = 16
"""Channels that one connection catches up in at once: their pages share the bytes of one, and go
into one frame."""
PAGES_HELD_BYTES_MAX: Final = 256 * MIB
"""Bytes of pages that clients of one gateway have been given and not read; above it no further page
is read, and who has read nothing for a while is closed with "come back"."""
PAGES_HELD_SECONDS_MAX: Final = 5.0
"""That while."""
REPLICA_SECONDS_MAX: Final = 1.0
"""How long a catch-up waits for replicas before it asks the primary."""
REPLICAS_MAX: Final = 5
"""Most replicas that one gateway reads."""
REPLICAS_ASKED_MAX: Final = 2
"""Replicas that one read asks before the primary: a second one when the first fails or lacks a
page."""
REPLICA_LAG_SECONDS_MAX: Final = 2.0
"""A replica that is further behind is not asked while another one is closer."""
REPLICA_LOOK_SECONDS: Final = 1.0
"""How often a gateway looks how far each replica is behind, and how long a look may take."""
FRAMES_A_SECOND_MAX: Final = 10
"""Most frames of updates to one connection in any second; what does not fit comes from the log, in
one frame."""
FRAMES_BURST: Final = 4
"""As many of them may follow each other at once; then the next ones come 0.4 s later."""
HIDDEN_FRAME_SECONDS: Final = 10.0
"""A connection that nobody looks at is sent a frame of updates this seldom."""
HIDDEN_FRAMES_BURST: Final = 4
"""As many of them may follow each other at once when there was nothing to send for long."""
GATHERED_BYTES_MAX: Final = 16 * MIB
"""Most bytes of one gathered read: its channels share them."""
SETTLE_SECONDS_MAX: Final = 2
"""How long a catch-up waits for NATS to know what the gateway listens to; then it reads the log,
and heads are compared later."""
SETTLE_SILENT_SECONDS: Final = 5.0
"""After such a wait was in vain: for how long no other catch-up waits."""
HEAD_CHECK_SECONDS: Final = 15.0
"""How often a connection's positions are compared with the heads, spread over connections."""
HEAD_CHECK_FIRST_SECONDS: Final = 1.0
"""The first head check after a connect."""
HEAD_CHECK_DEGRADED_SECONDS: Final = 3.0
"""The same while pushes cannot come: how late updates are then, at the most."""
DEGRADED_AFTER_SECONDS: Final = 1.0
"""For how long NATS or the log has to be away before clients are told."""
TOKEN_BYTES_MAX: Final = 8 * KIB
"""Longest token, checked before it is decoded."""
CURSOR_BYTES_MAX: Final = 4 * KIB
"""Longest cursor in a URL or in `Last-Event-ID`."""
POLL_WAIT_SECONDS: Final = 25
"""How long a long poll waits when it does not say for how long."""
POLL_WAIT_SECONDS_MAX: Final = 30
"""The longest wait of a long poll."""
POLL_READ_SECONDS_MAX: Final = 10
"""How long a long poll waits for the log, however short its own wait is."""
SNAPSHOT_SECONDS_MAX: Final = 0.45
"""How long a snapshot may take: so long servers are asked, then an old one is sent, or an error."""
SNAPSHOT_AGE_SECONDS_MIN: Final = 1.0
"""A request that asks for a page younger than this gets one that is so young."""
SNAPSHOTS_AT_ONCE: Final = 4
"""Answers of `GET /v1/feeds/{feed}` that a gateway makes at once."""
SEEN_SECONDS: Final = 1.0
"""How long a gateway gathers `seen` frames before it writes them."""
SEEN_ROWS_MAX: Final = 1_000
"""Markers that one statement of a gateway writes."""
SEEN_WAITING_MAX: Final = 100_000
"""Markers that wait in a gateway while they cannot be written; more are dropped."""
SEEN_DEVICES_MAX: Final = 16
"""Devices of a user whose markers are kept in a channel; those that are furthest stay."""
KEYS_SECONDS: Final = 300.0
"""How often the keys of LIVEFEED_JWKS_URL are read again."""
KEYS_PAUSE_SECONDS: Final = 10.0
"""How seldom tokens with an unknown key have them read; and the pause after a read that failed."""
KEYS_SECONDS_MAX: Final = 86_400.0
"""Keys that could not be read again for so long are believed no more."""
KEYS_FETCH_SECONDS_MAX: Final = 5.0
"""How long their server may take."""
KEYS_BYTES_MAX: Final = 256 * KIB
"""Largest JWKS."""
KEYS_MAX: Final = 64
"""Keys of a JWKS that are looked at."""
AUTHORIZE_SECONDS_MAX: Final = 2.0
"""How long LIVEFEED_AUTHORIZER may take, with the wait for its turn."""
AUTHORIZE_AT_ONCE: Final = 64
"""Questions that a gateway asks it at the same time."""
AUTHORIZED_SECONDS: Final = 30.0
"""How long its answer is believed."""
AUTHORIZED_MAX: Final = 100_000
"""Answers that a gateway remembers."""
COMMANDS_A_SECOND: Final = 20
"""Frames that a client may send in a second; each one above it is answered with an error."""
COMMANDS_BURST: Final = 40
"""Frames that a client may send at once after a silence."""
ACCEPT_BURST_SECONDS: Final = 5.0
"""A gateway accepts at once as many connections as it may in this time."""
RECONNECT_SPREAD_SECONDS: Final = 0.5
"""A client that is sent away comes back after a random time up to this; when they are sent is
spread already."""
AGE_SPREAD_SHARE: Final = 0.1
"""By this much of it a connection's greatest age is shortened at random: who came together goes
apart."""
SESSIONS_SECONDS: Final = 0.5
"""How long a gateway gathers users who came before it asks the others for their connections, and
how long it waits for the answers."""
SESSIONS_USERS_MAX: Final = 500
"""Users in one such question."""
SESSIONS_IN_MESSAGE_MAX: Final = 2_000
"""Connections in one such answer, so that it fits into a message of NATS with any user ids."""
FLEET_SECONDS: Final = 1.0
"""How often a gateway says how many connections it has."""
FLEET_SILENT_SECONDS_MAX: Final = 3.5
"""A gateway that was silent for longer counts no more in the mean."""
FLEET_CONNECTIONS_MAX: Final = 10_000_000
"""Connections that a gateway may say it has; what says more is ignored."""
FLEET_GATEWAYS_MAX: Final = 1_000
"""Gateways that one gateway knows of."""
REVOCATION_READ_SECONDS: Final = 15.0
"""How often a gateway reads the new revocations: within this time it finds one that it did not
hear of."""
REVOCATION_OVERLAP_SECONDS: Final = 60.0
"""How far before its last look it reads: longer than the transaction of a revocation takes."""
REVOCATIONS_MAX: Final = 100_000
"""Revocations that one read takes; the newest ones count."""
REVOCATION_SECONDS: Final = 30 * 86_400
"""How long a revocation is in force where the command does not say."""

# The caches of feed snapshots.
CACHE_MEMORY_ENTRIES_MAX: Final = 100_000
"""Most entries of a gateway's own cache; those that were not asked for longest go first."""
CACHE_MEMORY_BYTES_MAX: Final = 128 * MIB
"""Most bytes of that cache, with what the entries cost beside their values."""
CACHE_MEMORY_FRESH_SECONDS: Final = 60.0
"""How long an entry of it is fresh: then the shared cache is asked again."""
CACHE_SHARED_BYTES_MAX: Final = 256 * MIB
"""Most bytes of the shared cache in NATS; from a full one what was put there first goes first."""
CACHE_SHARED_VALUE_BYTES_MAX: Final = 768 * KIB
"""Largest value of the shared cache; a larger one is in the gateways' own caches only."""
CACHE_SHARED_FRESH_SECONDS: Final = 300.0
"""How long an entry of the shared cache is fresh: then it is made again."""
CACHE_FRESH_SECONDS_MAX: Final = 600.0
"""For how long `LIVEFEED_SNAPSHOT_FRESH_SECONDS` may have entries be fresh in a gateway's own
cache."""
CACHE_STALE_SECONDS: Final = 3_600.0
"""How long after that an entry may still be served, while it is made again or cannot be made."""
CACHE_LIFETIME_SPREAD_SHARE: Final = 0.1
"""By this much of it each entry's lifetime is longer or shorter: what was made together does not
end together."""
CACHE_CLOCK_SECONDS_MAX: Final = 10.0
"""How much later than now an entry may have been made, by another computer's clock."""
CACHE_GET_SECONDS_MAX: Final = 0.05
"""How long a read of the shared cache may take."""
CACHE_SET_SECONDS_MAX: Final = 0.2
"""How long a write to it, or to the table, may take; nobody waits for it."""
REDIS_CONNECTIONS_MAX: Final = 16
"""Connections of a gateway process to Redis, where pages are shared there; more calls wait, as long
as each may take."""
REDIS_CALLS_MAX: Final = 10_000
"""Calls that wait for one of them; more fail at once."""
REDIS_SECONDS_MAX: Final = 1.0
"""How long connecting to Redis, or one answer, may take before the connection is given up; nobody
waits for as long."""
CACHE_TABLE_ROWS_MAX: Final = 200_000
"""Most pages of a feed source in the table; a full one takes nothing new."""
CACHE_TABLE_BYTES_MAX: Final = 1024 * MIB
"""Most bytes of them together."""
CACHE_TABLE_KEPT_SHARE: Final = 0.8
"""Above this share of either `retain` deletes those that end first."""
CACHE_TABLE_VALUE_BYTES_MAX: Final = 768 * KIB
"""Largest page in the table; a larger one is in the gateways' own caches only."""
CACHE_TABLE_GET_SECONDS_MAX: Final = 0.1
"""How long a read of the table may take: the page has to be made in what is left."""
CACHE_TABLE_READS_AT_ONCE: Final = 4
"""Reads of the table that a gateway makes at once; more wait for their turn within that time."""
CACHE_TABLE_WRITES_AT_ONCE: Final = 2
"""Writes to the table that a gateway makes at once; more are left out."""
CACHE_CALL_SECONDS_MAX: Final = 0.25
"""How long any cache may take for anything; then it has failed."""
CACHE_LOAD_SECONDS_MAX: Final = 30.0
"""How long one may take to be made, whoever still waits for it."""
CACHE_FLIGHTS_MAX: Final = 10_000
"""Keys that are looked up, made or written at the same time; requests for more are refused."""
CACHE_WRITES_AT_ONCE: Final = 256
"""Writes to one cache at the same time; more are left out."""
CACHE_FAILURE_SECONDS: Final = 1.0
"""How seldom what could not be made is tried again."""
CACHE_FAILURES_MAX: Final = 10_000
"""Keys that could not be made, remembered for that."""

# The load level.
LOAD_SAMPLE_SECONDS: Final = 1.0
"""How often a gateway takes a sample of its load and says its level; a setting may change it."""
LOOP_PROBE_SECONDS: Final = 0.1
"""How often a timer finds out how late the event loop is."""
LOW_PAUSE_SECONDS_MAX: Final = 60.0
"""Low is paused no longer than this at once; then it goes on for as long, while the load stays
critical."""
LAG_SECONDS_MAX: Final = 1e9
"""What is announced above this is ignored: nothing has been late, or critical, for thirty years."""
LOAD_ANNOUNCED_SECONDS_MAX: Final = 5.0
"""A gateway's level counts no more when it was silent for longer: low is pulled again."""

# What prioritize asks about recipients.
PRESENCE_REPORT_SECONDS: Final = 1.0
"""How long a gateway gathers who came, left or looked away before it reports them."""
PRESENCE_SEEN_SECONDS: Final = 10.0
"""How often a gateway says that it is still there."""
PRESENCE_SEEN_SECONDS_MAX: Final = 30.0
"""What a gateway reported counts no more when it was silent for longer."""
PRESENCE_ROWS_MAX: Final = 1_000
"""Users that one statement of a gateway's report writes or deletes."""
PRESENCE_LEAVE_SECONDS_MAX: Final = 2.0
"""How long a gateway that leaves takes back what it reported; `retain` does the rest."""
AUDIENCE_ROWS_MAX: Final = 5_000
"""Follows or mutes that one statement of a command reads or writes."""
CONTEXT_SECONDS: Final = 5.0
"""How long a worker believes what it has read about a recipient."""
CONTEXTS_MAX: Final = 100_000
"""Recipients that a worker remembers."""
FOLLOWERS_PAGE_MAX: Final = 5_000
"""Followers of an actor that one message is expanded to; a continuation does the rest."""
FOLLOWERS_ROWS_MAX: Final = 20_000
"""Followers × items that one message is expanded to."""
FOLLOW_ENDED_SECONDS_MAX: Final = 60 * 86_400
"""How long an ended follow is kept, for the removals of what it brought. Twice the log's age: what
is published again is as young as that."""
FOLLOW_CLOCK_SECONDS_MAX: Final = 2.0
"""How much later than an update a follow may have begun that is to get it: Postgres's clock says
when the one was, the stream's when the other."""
RESOLVE_SECONDS_MAX: Final = 5.0
"""How long an audience resolver may take for a page."""
RESOLVE_DELIVERIES_MAX: Final = 50
"""From this delivery on an update whose audience resolver is away is a dead letter."""
RESOLVED_AT_ONCE: Final = 8
"""Pages of audiences that one worker asks for at the same time."""

# Workers.
WORKER_IDLE_SECONDS: Final = 20.0
"""A worker without work leaves after this."""
WORKER_LIFE_SECONDS: Final = 300.0
"""A worker leaves at this age; its successor is started first."""
WORKER_SETTLE_SECONDS: Final = 5.0
"""How long a worker may take to settle after SIGTERM."""
WORKER_MEMORY_BYTES_MAX: Final = 512 * MIB
"""A worker above this leaves; a setting may change it."""
RETAIN_BUDGET_SECONDS: Final = 30.0
"""A run of `retain` that the pool started trims no longer than this; the next one goes on."""
RETAIN_IDLE_SECONDS: Final = 600.0
"""While no message is handled the pool starts `retain` this seldom."""
ANNOUNCE_SECONDS: Final = 1.0
"""How often a worker announces itself."""
ANNOUNCED_SECONDS_MAX: Final = 3.0
"""A worker that was silent for longer has no partitions."""
ISOLATE_DELIVERIES: Final = 5
"""From this delivery on a message is handled alone."""
DELIVERIES_MAX: Final = 100
"""From this delivery on a message is dead-lettered unread: it kills its workers. An outage makes
deliveries too, one for each worker's life, so this is hours of it."""
SOURCE_SECONDS_MAX: Final = 0.4
"""How long a feed source may take for a page; then it has failed."""
SOURCE_LATE_MAX: Final = 16
"""Calls of it that were given up and have not ended; with as many it is not called."""

# Memory.
MEMORY_LOOK_SECONDS: Final = 1.0
"""How often a gateway looks at the share of its memory that is used."""
CACHES_SHRINK_SHARE: Final = 0.8
"""From this share on the cache in memory is halved at each look."""
CACHES_EMPTY_SHARE: Final = 0.9
"""From this share on it is emptied, and garbage is collected once a minute."""
