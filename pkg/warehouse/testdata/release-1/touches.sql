CREATE TABLE polyphony.touches
(
    `division` LowCardinality(String),
    `territory` LowCardinality(String),
    `hour` DateTime('UTC'),
    `stamp` UInt64
)
ENGINE = SummingMergeTree(stamp)
ORDER BY (division, territory, hour)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = ''
