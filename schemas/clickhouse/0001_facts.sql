-- The facts: rows whose key and content follow from an event and the rules version alone. Writing a fact again changes
-- nothing; the highest version of a key holds. Deletions are rows too, and must never be cleaned away by a merge.
--
-- The hot tables are laid out for cheap inserts and merges. Blocks arrive as compact parts (one file, not forty), and
-- sixteen parts rather than five are gathered into one. Only the sort key has LowCardinality: outside of it, merging
-- plain strings takes a third of the time. Where words or what leads back to people must vanish in time, parts are merged
-- for that alone, twice a day; elsewhere whole parts go. Statistics and sparse columns would cost processor time at every merge.

CREATE TABLE IF NOT EXISTS mentions_store
(
    division          LowCardinality(String),
    territory         LowCardinality(String),
    time              DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    event_key         FixedString(16) CODEC(NONE),
    version           UInt128,
    is_deleted        UInt8,
    recorded_time     DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    source            String,
    kind              Enum8('none' = 0, 'post' = 1, 'reply' = 2, 'share' = 3, 'reaction' = 4, 'follow' = 5, 'view' = 6),
    author_key        FixedString(16) CODEC(NONE),
    parent_key        FixedString(16),
    root_key          FixedString(16),
    parent_author_key FixedString(16),
    via               Enum8('none' = 0, 'text' = 1, 'account' = 2, 'thread' = 3),
    account           String,
    owned             Bool,
    by_company        Bool,
    bot               Bool,
    role              Enum8('unknown' = 0, 'patient' = 1, 'caregiver' = 2, 'hcp' = 3, 'employee' = 4, 'partner' = 5,
        'company' = 6, 'other' = 7),
    role_confidence   Float32,
    lang              String,
    country           String,
    country_method    Enum8('none' = 0, 'place' = 1, 'author' = 2, 'account' = 3, 'language' = 4),
    sentiment         Float32, -- NaN when not judged
    products          Array(String),
    competitors       Array(String),
    topics            Array(String),
    needs             Array(String),
    is_question       Bool,
    ae_elements       UInt8,
    ae_screened       Bool,
    ae_serious        Bool,
    offlabel          Bool,
    cluster_id        UInt64,
    followers         Int64,
    likes             Int64, -- totals that it carried as of its own time, 0 when none: see locations and gains
    shares            Int64,
    views             Int64,
    text              String,
    rules_version     String
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (division, territory, time, event_key)
SETTINGS allow_experimental_replacing_merge_with_cleanup = 0, min_bytes_for_wide_part = 67108864,
    merge_selector_base = 16, auto_statistics_types = '', ratio_of_defaults_for_sparse_serialization = 1,
    merge_with_ttl_timeout = 43200;

-- Where and how an event stands, for whoever holds only its key: a lookup by event_key in mentions_store reads all of it.
-- Written before the mention, so that nobody who looks misses one. Copies of an event that name other authors have rows of
-- their own: it was written by each of them.
CREATE TABLE IF NOT EXISTS locations
(
    event_key     FixedString(16) CODEC(NONE),
    division      String,
    territory     String,
    time          DateTime64(3, 'UTC'),
    author_key    FixedString(16) CODEC(NONE),
    version       SimpleAggregateFunction(max, UInt128), -- as in mentions_store; its bits tell the rest
    recorded      SimpleAggregateFunction(min, DateTime64(3, 'UTC')), -- since when it is known, whether it still holds or not
    likes         SimpleAggregateFunction(max, Int64),   -- totals that it carried as of that time, as in counters
    replies       SimpleAggregateFunction(max, Int64),
    shares        SimpleAggregateFunction(max, Int64),
    views         SimpleAggregateFunction(max, Int64),
    carried_least SimpleAggregateFunction(min, UInt64),  -- of hashes of the totals that copies of the event carried: where
    carried_most  SimpleAggregateFunction(max, UInt64)   -- the two differ, so did the totals
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (event_key, division, territory, time, author_key)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '',
    ratio_of_defaults_for_sparse_serialization = 1, ttl_only_drop_parts = 1;

-- The highest version of an event that holds in any node, as far as it is not just the one version there is: an edit, an
-- earlier time, other words under the same id and time, or, highest of all, its deletion; 0 where there may be an
-- edit. Whoever writes a mention looks here, and what is below is stored as taken back: readers need not look.
CREATE TABLE IF NOT EXISTS heads
(
    event_key FixedString(16),
    version   UInt128
)
ENGINE = ReplacingMergeTree(version)
ORDER BY event_key
SETTINGS index_granularity = 256, auto_statistics_types = '';

-- Who asked that all they wrote up to a time be deleted. Whoever writes a mention looks here too.
CREATE TABLE IF NOT EXISTS author_heads
(
    author_key FixedString(16),
    until      DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(until)
ORDER BY author_key
SETTINGS index_granularity = 256, auto_statistics_types = '';

-- What an event would be as a mention of any node, where no mention says it: of each that refers to others and is none by
-- itself ('waiting'), and of each that was edited, as it is now ('edited') and as it was first written ('before'). The
-- version is the whole of it, with the time; the highest of a part holds, and the others stay where they name other authors,
-- with whose words the event goes too. What waits for its post is dropped three waits after it was recorded; what is a mention,
-- in every copy, is `kept` as long as those.
CREATE TABLE IF NOT EXISTS selves
(
    event_key         FixedString(16) CODEC(NONE),
    part              Enum8('waiting' = 1, 'edited' = 2, 'before' = 3),
    kept              Bool,
    expires           DateTime('UTC'),
    sealed            String CODEC(NONE),
    time              DateTime64(3, 'UTC'),
    version           UInt256, -- 44 bits of inverted recorded time follow the mention's: of those that say the same the first stands
    is_deleted        UInt8,
    recorded_time     DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    source            String,
    kind              Enum8('none' = 0, 'post' = 1, 'reply' = 2, 'share' = 3, 'reaction' = 4, 'follow' = 5, 'view' = 6),
    author_key        FixedString(16) CODEC(NONE),
    parent_key        FixedString(16),
    root_key          FixedString(16),
    parent_author_key FixedString(16),
    via               Enum8('none' = 0, 'text' = 1, 'account' = 2, 'thread' = 3),
    account           String,
    owned             Bool,
    by_company        Bool,
    bot               Bool,
    role              Enum8('unknown' = 0, 'patient' = 1, 'caregiver' = 2, 'hcp' = 3, 'employee' = 4, 'partner' = 5,
        'company' = 6, 'other' = 7),
    role_confidence   Float32,
    lang              String,
    country           String,
    country_method    Enum8('none' = 0, 'place' = 1, 'author' = 2, 'account' = 3, 'language' = 4),
    sentiment         Float32, -- NaN when not judged
    products          Array(String),
    competitors       Array(String),
    topics            Array(String),
    needs             Array(String),
    is_question       Bool,
    ae_elements       UInt8,
    ae_screened       Bool,
    ae_serious        Bool,
    offlabel          Bool,
    cluster_id        UInt64,
    followers         Int64,
    text              String,
    rules_version     String
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY (event_key, part, author_key)
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + INTERVAL 1 DAY)
SETTINGS index_granularity = 256, allow_experimental_replacing_merge_with_cleanup = 0, merge_selector_base = 16, auto_statistics_types = '',
    ratio_of_defaults_for_sparse_serialization = 1, merge_with_ttl_timeout = 43200;

-- Of which events more is known than mentions say: others refer to them, they have a self, or totals of them were told. They
-- are named by the first halves of their keys. Every mention is looked for here, and the few that are found (or share that
-- half with one) then in edges, selves and counters, where each costs several times as much while millions of replies
-- wait. Written before what it tells of, and kept as long. All but the smallest parts are wide: of compact ones with many
-- granules, reading a single column takes ten times as long.
CREATE TABLE IF NOT EXISTS notes
(
    event_half UInt64 CODEC(NONE),
    kept       Bool, -- the same in all of a partition
    expires    DateTime('UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY event_half
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + INTERVAL 1 DAY)
SETTINGS index_granularity = 1024, min_bytes_for_wide_part = 1048576, merge_selector_base = 16, auto_statistics_types = '',
    ttl_only_drop_parts = 1;

-- Which event refers to which, seen from either end: 'to' what it names, 'from' what names it. An event waits for what it
-- names until `until`.
CREATE TABLE IF NOT EXISTS edges
(
    event_key FixedString(16) CODEC(NONE),
    direction Enum8('to' = 1, 'from' = 2),
    other_key FixedString(16) CODEC(NONE),
    until     SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    recorded  SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    kept      Bool, -- the same in all of a partition
    expires   SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY (direction, event_key, other_key)
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + INTERVAL 1 DAY)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '', ttl_only_drop_parts = 1;

-- A random number for every change to the facts of a node-hour. Their wrapping sum names the state of those facts.
CREATE TABLE IF NOT EXISTS touches
(
    division  LowCardinality(String),
    territory LowCardinality(String),
    hour      DateTime('UTC'),
    stamp     UInt64
)
ENGINE = SummingMergeTree(stamp)
ORDER BY (division, territory, hour)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '';

-- Totals of posts, as their networks told them at one time or another, also of posts that nobody has seen yet; -1 is a
-- total that was not told. Of those told of one post and one time the greatest holds, each total by itself.
CREATE TABLE IF NOT EXISTS counters
(
    event_key FixedString(16) CODEC(NONE),
    observed  DateTime64(3, 'UTC'),
    likes     SimpleAggregateFunction(max, Int64),
    replies   SimpleAggregateFunction(max, Int64),
    shares    SimpleAggregateFunction(max, Int64),
    views     SimpleAggregateFunction(max, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(observed)
ORDER BY (event_key, observed)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '';

-- What totals add to the count of single events in a node, besides what mentions carry. A row of part 'total' stands at the
-- time when totals of the post event_key were observed: with what a mention shows there it comes to what they gained since
-- they were observed before, less than 0 where they fell. A row of part 'single' stands at the share, reaction or view
-- event_key and takes it away, because the post has a total of these. A row is one decision, made from the facts; a later
-- one has the next version.
CREATE TABLE IF NOT EXISTS gains
(
    division   LowCardinality(String),
    territory  LowCardinality(String),
    time       DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    event_key  FixedString(16) CODEC(NONE),
    part       Enum8('total' = 1, 'single' = 2),
    version    UInt64,
    is_deleted UInt8,
    shares     Int64,
    reactions  Int64,
    views      Int64
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (division, territory, time, event_key, part)
SETTINGS allow_experimental_replacing_merge_with_cleanup = 0, merge_selector_base = 16, auto_statistics_types = '';

-- Edits and deletions as facts, also of posts that nobody has seen yet. A deletion of all that an author
-- wrote has an author and no object; with an object, the author is content. Of one statement the highest version holds,
-- by content first. The event as it came is in originals, under statement_key and with the same version.
CREATE TABLE IF NOT EXISTS statements
(
    statement_key     FixedString(16),
    source            LowCardinality(String),
    kind              Enum8('edit' = 7, 'delete' = 8),
    time              DateTime64(3, 'UTC'),
    recorded_time     DateTime64(3, 'UTC'),
    object_key        FixedString(16),
    object_author_key FixedString(16),
    rules_version     LowCardinality(String),
    version           UInt128
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (object_key, if(object_key = toFixedString('', 16), object_author_key, toFixedString('', 16)), kind, time, statement_key)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '', merge_with_ttl_timeout = 43200;

-- Native ids, handles and links, and the text where a mention has some of it masked, encrypted with a key that ClickHouse
-- never has. Of several records of an event that of the copy holds that stands as first written.
CREATE TABLE IF NOT EXISTS originals
(
    event_key     FixedString(16) CODEC(NONE),
    source        String,
    recorded_time DateTime64(3, 'UTC'),
    sealed        String CODEC(NONE),
    version       UInt128
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(recorded_time)
ORDER BY event_key
SETTINGS index_granularity = 1024, merge_selector_base = 16, auto_statistics_types = '', merge_with_ttl_timeout = 43200;

-- Events that could not be processed. Their bytes are in the stream REJECTS: the message's sequence number, and the
-- position within the message. One that was published twice is the same by its id, which follows from nothing in it.
CREATE TABLE IF NOT EXISTS rejects_store
(
    time     DateTime64(3, 'UTC'),
    stage    LowCardinality(String),
    code     LowCardinality(String),
    source   LowCardinality(String),
    detail   String,
    sequence UInt64,
    position UInt32,
    id       String,
    rules_version LowCardinality(String),
    origin   String,
    size     UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (stage, code, time, id)
TTL toDateTime(time) + INTERVAL 90 DAY
SETTINGS auto_statistics_types = '', ttl_only_drop_parts = 1;

-- What a rules version said, and since when. A generation is the number of a change of the nodes directory.
CREATE TABLE IF NOT EXISTS rules_store
(
    rules_version String,
    generation    UInt64,
    recorded_time DateTime64(3, 'UTC'),
    document      String
)
ENGINE = ReplacingMergeTree
ORDER BY rules_version
SETTINGS auto_statistics_types = '';

CREATE TABLE IF NOT EXISTS nodes_store
(
    generation      UInt64,
    division        LowCardinality(String),
    territory       LowCardinality(String),
    division_title  String,
    territory_title String,
    timezone        LowCardinality(String),
    business_units  Array(LowCardinality(String)),
    rules_version   String
)
ENGINE = ReplacingMergeTree
ORDER BY (generation, division, territory)
SETTINGS auto_statistics_types = '';

-- The clocks of the territories, in runs of local days: run i begins at the instant since[i], with the local day
-- first_day[i], and has days[i] of them, each 24 hours long but the last, which ends where the next run begins.
CREATE TABLE IF NOT EXISTS clocks_store
(
    generation UInt64,
    territory  LowCardinality(String),
    timezone   LowCardinality(String),
    since      Array(DateTime64(3, 'UTC')),
    first_day  Array(Date),
    days       Array(UInt32)
)
ENGINE = ReplacingMergeTree
ORDER BY (generation, territory)
SETTINGS auto_statistics_types = '';

-- Until when the metrics are complete: the latest claim of the last epoch holds. An epoch ends where something acknowledged
-- was lost and is read again. Positions are where the streams were, in JSON.
CREATE TABLE IF NOT EXISTS freshness_store
(
    stream         LowCardinality(String),
    epoch          UInt32,
    complete_until DateTime64(3, 'UTC'),
    sequence       UInt64,
    positions      String
)
ENGINE = ReplacingMergeTree(complete_until)
ORDER BY (stream, epoch)
SETTINGS auto_statistics_types = '';

-- The retention in force, in hours, 0 for ever; the last row holds.
CREATE TABLE IF NOT EXISTS retention
(
    one      UInt8,
    text     UInt32,
    mentions UInt32,
    metrics  UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY one
SETTINGS auto_statistics_types = '';

CREATE OR REPLACE VIEW nodes SQL SECURITY INVOKER AS
SELECT division, territory, division_title, territory_title, timezone, business_units, rules_version
FROM nodes_store FINAL
WHERE generation = (SELECT max(generation) FROM nodes_store);

CREATE OR REPLACE VIEW rules SQL SECURITY INVOKER AS
SELECT rules_version, recorded_time, document
FROM rules_store FINAL;

CREATE OR REPLACE VIEW rejects SQL SECURITY INVOKER AS
SELECT time, stage, code, source, detail, rules_version, origin, size, sequence, position
FROM rejects_store FINAL;

CREATE OR REPLACE VIEW freshness SQL SECURITY INVOKER AS
SELECT stream, argMax(f.complete_until, (epoch, f.complete_until)) AS complete_until, argMax(f.sequence, (epoch, f.complete_until)) AS sequence
FROM freshness_store AS f
GROUP BY stream;
