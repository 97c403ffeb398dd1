-- The facts: rows whose key and content follow from an event and the rules version alone.
-- Writing a fact again changes nothing; the highest version of a key holds.

CREATE TABLE IF NOT EXISTS mentions_store
(
    division          LowCardinality(String),
    territory         LowCardinality(String),
    time              DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    event_key         FixedString(16) CODEC(NONE),
    lane              Enum8('own' = 1, 'thread' = 2),
    version           UInt128,
    is_deleted        UInt8,
    recorded_time     DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    source            LowCardinality(String),
    kind              Enum8('post' = 1, 'reply' = 2, 'share' = 3, 'reaction' = 4, 'follow' = 5, 'view' = 6),
    author_key        FixedString(16),
    parent_key        FixedString(16),
    root_key          FixedString(16),
    parent_author_key FixedString(16),
    via               Enum8('text' = 1, 'account' = 2, 'thread' = 3),
    account           LowCardinality(String),
    owned             Bool,
    by_company        Bool,
    bot               Bool,
    role              LowCardinality(String),
    role_confidence   Float32,
    lang              LowCardinality(String),
    country           LowCardinality(String),
    country_method    LowCardinality(String),
    sentiment         Nullable(Float32),
    products          Array(LowCardinality(String)),
    competitors       Array(LowCardinality(String)),
    topics            Array(LowCardinality(String)),
    needs             Array(LowCardinality(String)),
    is_question       Bool,
    ae_elements       UInt8,
    ae_screened       Bool,
    ae_serious        Bool,
    offlabel          Bool,
    cluster_id        UInt64,
    followers         Int64,
    text              String,
    rules_version     LowCardinality(String)
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (division, territory, time, event_key, lane)
SETTINGS allow_experimental_replacing_merge_with_cleanup = 0, auto_statistics_types = '';

-- Where an event is a mention, for whoever holds only its key. A lookup by event_key in mentions_store reads all of it.
CREATE TABLE IF NOT EXISTS locations
(
    event_key FixedString(16) CODEC(NONE),
    division  LowCardinality(String),
    territory LowCardinality(String),
    time      DateTime64(3, 'UTC'),
    lane      Enum8('own' = 1, 'thread' = 2)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (event_key, division, territory, time, lane)
SETTINGS index_granularity = 256, auto_statistics_types = '';

-- A random number for every change to a node-hour; their wrapping sum names the state of its facts.
CREATE TABLE IF NOT EXISTS touches
(
    division  LowCardinality(String),
    territory LowCardinality(String),
    hour      DateTime('UTC'),
    stamp     UInt64
)
ENGINE = SummingMergeTree(stamp)
ORDER BY (division, territory, hour)
SETTINGS index_granularity = 256, auto_statistics_types = '';
