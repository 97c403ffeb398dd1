CREATE TABLE polyphony.counters
(
    `event_key` FixedString(16) CODEC(NONE),
    `observed` DateTime64(3, 'UTC'),
    `likes` SimpleAggregateFunction(max, Int64),
    `replies` SimpleAggregateFunction(max, Int64),
    `shares` SimpleAggregateFunction(max, Int64),
    `views` SimpleAggregateFunction(max, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(observed)
ORDER BY (event_key, observed)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = ''
