CREATE TABLE polyphony.frozen
(
    `one` UInt8,
    `before` SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY one
SETTINGS auto_statistics_types = '', index_granularity = 8192
