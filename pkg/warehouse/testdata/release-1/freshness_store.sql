CREATE TABLE polyphony.freshness_store
(
    `stream` LowCardinality(String),
    `epoch` UInt32,
    `complete_until` DateTime64(3, 'UTC'),
    `sequence` UInt64,
    `positions` String
)
ENGINE = ReplacingMergeTree(complete_until)
ORDER BY (stream, epoch)
SETTINGS auto_statistics_types = '', index_granularity = 8192
