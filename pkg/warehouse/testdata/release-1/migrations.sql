CREATE TABLE polyphony.migrations
(
    `number` UInt32,
    `name` String,
    `applied` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY number
SETTINGS index_granularity = 8192
