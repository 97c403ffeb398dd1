CREATE TABLE polyphony.author_heads
(
    `author_key` FixedString(16),
    `until` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(until)
ORDER BY author_key
SETTINGS index_granularity = 256, auto_statistics_types = ''
