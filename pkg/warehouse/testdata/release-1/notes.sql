CREATE TABLE polyphony.notes
(
    `event_half` UInt64 CODEC(NONE),
    `kept` Bool,
    `expires` DateTime('UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY event_half
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + toIntervalDay(1))
SETTINGS index_granularity = 1024, min_bytes_for_wide_part = 1048576, merge_selector_base = 16, auto_statistics_types = '', ttl_only_drop_parts = 1
