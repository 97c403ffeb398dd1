CREATE TABLE polyphony.heads
(
    `event_key` FixedString(16),
    `version` UInt128
)
ENGINE = ReplacingMergeTree(version)
ORDER BY event_key
SETTINGS index_granularity = 256, auto_statistics_types = ''
