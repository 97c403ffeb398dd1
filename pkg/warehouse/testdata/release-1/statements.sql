CREATE TABLE polyphony.statements
(
    `statement_key` FixedString(16),
    `source` LowCardinality(String),
    `kind` Enum8('edit' = 7, 'delete' = 8),
    `time` DateTime64(3, 'UTC'),
    `recorded_time` DateTime64(3, 'UTC'),
    `object_key` FixedString(16),
    `object_author_key` FixedString(16),
    `rules_version` LowCardinality(String),
    `version` UInt128
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(time)
ORDER BY (object_key, if(object_key = toFixedString('', 16), object_author_key, toFixedString('', 16)), kind, time, statement_key)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '', merge_with_ttl_timeout = 43200
