CREATE TABLE polyphony.clocks_store
(
    `generation` UInt64,
    `territory` LowCardinality(String),
    `timezone` LowCardinality(String),
    `since` Array(DateTime64(3, 'UTC')),
    `first_day` Array(Date),
    `days` Array(UInt32)
)
ENGINE = ReplacingMergeTree
ORDER BY (generation, territory)
SETTINGS auto_statistics_types = '', index_granularity = 8192
