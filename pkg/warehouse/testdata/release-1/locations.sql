CREATE TABLE polyphony.locations
(
    `event_key` FixedString(16) CODEC(NONE),
    `division` String,
    `territory` String,
    `time` DateTime64(3, 'UTC'),
    `author_key` FixedString(16) CODEC(NONE),
    `version` SimpleAggregateFunction(max, UInt128),
    `recorded` SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    `likes` SimpleAggregateFunction(max, Int64),
    `replies` SimpleAggregateFunction(max, Int64),
    `shares` SimpleAggregateFunction(max, Int64),
    `views` SimpleAggregateFunction(max, Int64),
    `carried_least` SimpleAggregateFunction(min, UInt64),
    `carried_most` SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (event_key, division, territory, time, author_key)
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '', ratio_of_defaults_for_sparse_serialization = 1, ttl_only_drop_parts = 1
