-- What is derived from the facts. Formula version 1.

-- The metrics of one node-hour, made from the facts as they were when the touches summed up to `touched`.
-- The last insert of an hour wins. `seen` is 0 for an hour that had no facts left; the views do not show it.
CREATE TABLE IF NOT EXISTS node_hours
(
    division           LowCardinality(String),
    territory          LowCardinality(String),
    hour               DateTime('UTC'),
    touched            UInt64,
    formula            UInt16,
    seen               UInt64,
    mentions           UInt64,
    voices             UInt64,
    posts              UInt64,
    replies            UInt64,
    broadcasts         UInt64,
    answers            UInt64,
    shares             UInt64,
    reactions          UInt64,
    mentions_by_source Map(LowCardinality(String), UInt64)
)
ENGINE = ReplacingMergeTree
ORDER BY (division, territory, hour)
SETTINGS index_granularity = 256, auto_statistics_types = '';

CREATE OR REPLACE VIEW mentions SQL SECURITY INVOKER AS
SELECT
    division, territory, time, recorded_time, source,
    CAST(kind, 'LowCardinality(String)') AS kind,
    if(event_key = toFixedString('', 16), '', lower(hex(event_key))) AS event_key,
    if(author_key = toFixedString('', 16), '', lower(hex(author_key))) AS author_key,
    if(parent_key = toFixedString('', 16), '', lower(hex(parent_key))) AS parent_key,
    if(root_key = toFixedString('', 16), '', lower(hex(root_key))) AS root_key,
    if(parent_author_key = toFixedString('', 16), '', lower(hex(parent_author_key))) AS parent_author_key,
    CAST(via, 'LowCardinality(String)') AS via,
    account, owned, by_company, bot, role, role_confidence, lang, country, country_method, sentiment, products,
    competitors, topics, needs, is_question, ae_elements, ae_screened, ae_serious, offlabel, cluster_id, followers, text,
    rules_version
FROM mentions_store FINAL;

CREATE OR REPLACE VIEW node_metrics_1h SQL SECURITY INVOKER AS
SELECT division, territory, hour AS bucket, mentions, voices, posts, replies, broadcasts, answers, shares, reactions,
    mentions_by_source
FROM node_hours FINAL
WHERE seen > 0 AND formula = 1 AND (division, territory, hour, touched) IN
    (SELECT division, territory, hour, sum(stamp) FROM touches GROUP BY division, territory, hour)
UNION ALL
SELECT division, territory, toStartOfHour(time) AS bucket,
    countIf(kind IN ('post', 'reply') AND NOT by_company) AS mentions,
    uniqExactIf(author_key, kind IN ('post', 'reply') AND NOT by_company AND NOT bot) AS voices,
    countIf(kind = 'post' AND NOT by_company) AS posts,
    countIf(kind = 'reply' AND NOT by_company) AS replies,
    countIf(kind = 'post' AND by_company) AS broadcasts,
    countIf(kind = 'reply' AND by_company) AS answers,
    countIf(kind = 'share' AND NOT by_company) AS shares,
    countIf(kind = 'reaction' AND NOT by_company) AS reactions,
    sumMapIf(map(source, toUInt64(1)), kind IN ('post', 'reply') AND NOT by_company) AS mentions_by_source
FROM mentions_store FINAL
WHERE (division, territory, toStartOfHour(time)) IN (
    SELECT division, territory, hour FROM (
        SELECT division, territory, hour, sum(stamp) AS touched FROM touches GROUP BY division, territory, hour
    ) WHERE (division, territory, hour, touched) NOT IN
        (SELECT division, territory, hour, touched FROM node_hours FINAL WHERE formula = 1)
)
GROUP BY division, territory, bucket;
