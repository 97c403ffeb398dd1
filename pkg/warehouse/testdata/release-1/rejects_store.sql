CREATE TABLE polyphony.rejects_store
(
    `time` DateTime64(3, 'UTC'),
    `stage` LowCardinality(String),
    `code` LowCardinality(String),
    `source` LowCardinality(String),
    `detail` String,
    `sequence` UInt64,
    `position` UInt32,
    `id` String,
    `rules_version` LowCardinality(String),
    `origin` String,
    `size` UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (stage, code, time, id)
TTL toDateTime(time) + toIntervalDay(90)
SETTINGS auto_statistics_types = '', ttl_only_drop_parts = 1, index_granularity = 8192
