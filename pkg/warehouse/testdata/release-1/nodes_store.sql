CREATE TABLE polyphony.nodes_store
(
    `generation` UInt64,
    `division` LowCardinality(String),
    `territory` LowCardinality(String),
    `division_title` String,
    `territory_title` String,
    `timezone` LowCardinality(String),
    `business_units` Array(LowCardinality(String)),
    `rules_version` String
)
ENGINE = ReplacingMergeTree
ORDER BY (generation, division, territory)
SETTINGS auto_statistics_types = '', index_granularity = 8192
