CREATE TABLE polyphony.rules_store
(
    `rules_version` String,
    `generation` UInt64,
    `recorded_time` DateTime64(3, 'UTC'),
    `document` String
)
ENGINE = ReplacingMergeTree
ORDER BY rules_version
SETTINGS auto_statistics_types = '', index_granularity = 8192
