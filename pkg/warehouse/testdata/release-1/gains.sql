CREATE TABLE polyphony.gains
(
    `division` LowCardinality(String),
    `territory` LowCardinality(String),
    `time` DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    `event_key` FixedString(16) CODEC(NONE),
    `part` Enum8('total' = 1, 'single' = 2),
    `version` UInt64,
    `is_deleted` UInt8,
    `shares` Int64,
    `reactions` Int64,
    `views` Int64
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(time)
ORDER BY (division, territory, time, event_key, part)
SETTINGS allow_experimental_replacing_merge_with_cleanup = 0, merge_selector_base = 16, auto_statistics_types = '', index_granularity = 8192
