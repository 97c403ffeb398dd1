CREATE TABLE polyphony.originals
(
    `event_key` FixedString(16) CODEC(NONE),
    `source` String,
    `recorded_time` DateTime64(3, 'UTC'),
    `sealed` String CODEC(NONE),
    `version` UInt128
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(recorded_time)
ORDER BY event_key
SETTINGS index_granularity = 1024, merge_selector_base = 16, auto_statistics_types = '', merge_with_ttl_timeout = 43200
