CREATE TABLE polyphony.retention
(
    `one` UInt8,
    `text` UInt32,
    `mentions` UInt32,
    `metrics` UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY one
SETTINGS auto_statistics_types = '', index_granularity = 8192
