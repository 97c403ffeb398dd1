CREATE TABLE polyphony.edges
(
    `event_key` FixedString(16) CODEC(NONE),
    `direction` Enum8('to' = 1, 'from' = 2),
    `other_key` FixedString(16) CODEC(NONE),
    `until` SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    `recorded` SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    `kept` Bool,
    `expires` SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY (direction, event_key, other_key)
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + toIntervalDay(1))
SETTINGS index_granularity = 256, merge_selector_base = 16, auto_statistics_types = '', ttl_only_drop_parts = 1
