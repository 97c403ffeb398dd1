CREATE TABLE polyphony.node_hours
(
    `division` LowCardinality(String),
    `territory` LowCardinality(String),
    `hour` DateTime('UTC'),
    `touched` UInt64,
    `formula` UInt16,
    `made` DateTime('UTC'),
    `events` UInt64,
    `mentions` UInt64,
    `voices` UInt64,
    `posts` UInt64,
    `replies` UInt64,
    `broadcasts` UInt64,
    `answers` UInt64,
    `shares` Int64,
    `reactions` Int64,
    `views` Int64,
    `mentions_by_source` Map(LowCardinality(String), UInt64)
)
ENGINE = ReplacingMergeTree
ORDER BY (division, territory, hour)
SETTINGS index_granularity = 256, auto_statistics_types = ''
