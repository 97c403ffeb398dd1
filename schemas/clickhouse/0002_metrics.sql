-- What is derived from the facts: formula version 1. See README.md for each metric.

-- The one place that says which facts a reader sees, and as what they count.
CREATE OR REPLACE VIEW visible SQL SECURITY INVOKER AS
SELECT *,
    kind IN ('post', 'reply') AND NOT by_company AS is_mention,
    is_mention AND NOT bot AS has_voice
FROM mentions_store FINAL;

-- One row per mention, keys in hexadecimal.
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
    account, owned, by_company, bot,
    CAST(role, 'LowCardinality(String)') AS role,
    role_confidence, lang, country,
    CAST(country_method, 'LowCardinality(String)') AS country_method,
    if(isNaN(sentiment), NULL, sentiment) AS sentiment,
    products, competitors, topics, needs, is_question, ae_elements, ae_screened, ae_serious, offlabel, cluster_id, followers, text,
    rules_version
FROM visible;

-- The version of the formulas below. What was sealed under another version is made anew.
CREATE OR REPLACE VIEW formula AS SELECT toUInt16(1) AS version;

-- The metrics of node-hours, made from the facts.
CREATE OR REPLACE VIEW made_hours SQL SECURITY INVOKER AS
SELECT division, territory, toStartOfHour(time) AS hour, count() AS events,
    countIf(is_mention) AS mentions,
    uniqExactIf(author_key, has_voice) AS voices,
    countIf(is_mention AND kind = 'post') AS posts,
    countIf(is_mention AND kind = 'reply') AS replies,
    countIf(by_company AND kind = 'post') AS broadcasts,
    countIf(by_company AND kind = 'reply') AS answers,
    countIf(NOT by_company AND kind = 'share') AS shares,
    countIf(NOT by_company AND kind = 'reaction') AS reactions,
    sumMapIf(map(source, toUInt64(1)), is_mention) AS mentions_by_source
FROM visible
GROUP BY division, territory, hour;

-- The sealed metrics of node-hours: made from the facts when the touches of the hour summed up to `touched`. The last
-- insert of an hour holds. An hour without facts has `events` 0, and no view shows it.
CREATE TABLE IF NOT EXISTS node_hours
(
    division           LowCardinality(String),
    territory          LowCardinality(String),
    hour               DateTime('UTC'),
    touched            UInt64,
    formula            UInt16,
    events             UInt64,
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

-- Hours before this instant hold as they are sealed, whatever touches them: their facts may be gone.
CREATE TABLE IF NOT EXISTS frozen
(
    one    UInt8,
    before SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY one
SETTINGS auto_statistics_types = '';

-- Sealed hours beside the touches: balance is 0 where an hour was sealed from the facts that `touched` names now. Reading
-- both tables in one pass lets a filter on node and hour reach both. The views below ask twice, once for what is fresh
-- and once for what is stale: both answers must come from the same parts, or an hour is in both or in neither.
CREATE OR REPLACE VIEW hours SQL SECURITY INVOKER AS
SELECT division, territory, hour,
    sum(stamp) AS balance, sumIf(stamp, NOT sealed) AS touched,
    max(events) AS events, max(mentions) AS mentions, max(voices) AS voices, max(posts) AS posts,
    max(replies) AS replies, max(broadcasts) AS broadcasts, max(answers) AS answers, max(shares) AS shares,
    max(reactions) AS reactions, anyLastIf(mentions_by_source, sealed) AS mentions_by_source
FROM
(
    SELECT division, territory, hour, stamp, false AS sealed, toUInt64(0) AS events, toUInt64(0) AS mentions,
        toUInt64(0) AS voices, toUInt64(0) AS posts, toUInt64(0) AS replies, toUInt64(0) AS broadcasts,
        toUInt64(0) AS answers, toUInt64(0) AS shares, toUInt64(0) AS reactions,
        CAST(map(), 'Map(LowCardinality(String), UInt64)') AS mentions_by_source
    FROM touches
    UNION ALL
    SELECT division, territory, hour, toUInt64(0 - touched) AS stamp, true AS sealed, events, mentions, voices, posts,
        replies, broadcasts, answers, shares, reactions, mentions_by_source
    FROM node_hours FINAL
    WHERE formula = (SELECT version FROM formula) OR hour < (SELECT max(before) FROM frozen)
)
WHERE NOT throwIf(NOT getSetting('enable_shared_storage_snapshot_in_query'),
    'Polyphony needs enable_shared_storage_snapshot_in_query = 1, ClickHouse\'s default')
GROUP BY division, territory, hour;

-- The hours that are to be made from the facts. First the days in which anything is stale: balances are random, so those
-- of a day add up to 0 only if each of them is 0, and summing whole days is several times cheaper than grouping hours.
CREATE OR REPLACE VIEW stale_hours SQL SECURITY INVOKER AS
SELECT division, territory, hour
FROM hours
WHERE balance != 0 AND hour >= (SELECT max(before) FROM frozen) AND toDate(hour) IN
(
    SELECT toDate(hour) AS day
    FROM
    (
        SELECT hour, stamp FROM touches
        UNION ALL
        SELECT hour, toUInt64(0 - touched) AS stamp FROM node_hours FINAL WHERE formula = (SELECT version FROM formula)
    )
    WHERE hour >= (SELECT max(before) FROM frozen)
    GROUP BY day
    HAVING sum(stamp) != 0
);

-- The clocks in force, a row for each run of local days, see clocks_store.
CREATE OR REPLACE VIEW clocks SQL SECURITY INVOKER AS
SELECT territory, since, first_day, days
FROM clocks_store FINAL
ARRAY JOIN since, first_day, days
WHERE generation = (SELECT max(generation) FROM clocks_store);

-- What readers see, each row with its local day and the instant at which that began. A territory without a clock has
-- days in UTC. East of Greenwich the first local day began before 1970, where a DateTime would be one of 2106: its
-- bucket is the first instant there is.
CREATE OR REPLACE VIEW visible_by_day SQL SECURITY INVOKER AS
SELECT v.*,
    least(intDiv(toUnixTimestamp64Milli(v.time) - toUnixTimestamp64Milli(c.since), 86400000),
        if(c.days = 0, 100000, c.days - 1)) AS nth,
    c.first_day + nth AS day,
    toDateTime(greatest(0, intDiv(toUnixTimestamp64Milli(c.since), 1000) + nth * 86400), 'UTC') AS bucket
FROM visible AS v
ASOF LEFT JOIN clocks AS c ON v.territory = c.territory AND v.time >= c.since;

-- Sealed where nothing changed since, made from the facts where something did.
CREATE OR REPLACE VIEW node_metrics_1h SQL SECURITY INVOKER AS
SELECT division, territory, hour AS bucket, mentions, voices, posts, replies, broadcasts, answers, shares, reactions,
    mentions_by_source
FROM hours
WHERE events > 0 AND (balance = 0 OR hour < (SELECT max(before) FROM frozen))
UNION ALL
SELECT division, territory, hour AS bucket, mentions, voices, posts, replies, broadcasts, answers, shares, reactions,
    mentions_by_source
FROM made_hours
WHERE (division, territory, hour) IN (SELECT division, territory, hour FROM stale_hours);

CREATE OR REPLACE VIEW node_metrics_1m SQL SECURITY INVOKER AS
SELECT division, territory, toStartOfMinute(time) AS bucket,
    countIf(is_mention) AS mentions,
    uniqExactIf(author_key, has_voice) AS voices,
    countIf(is_mention AND kind = 'post') AS posts,
    countIf(is_mention AND kind = 'reply') AS replies,
    countIf(by_company AND kind = 'post') AS broadcasts,
    countIf(by_company AND kind = 'reply') AS answers,
    countIf(NOT by_company AND kind = 'share') AS shares,
    countIf(NOT by_company AND kind = 'reaction') AS reactions,
    sumMapIf(map(source, toUInt64(1)), is_mention) AS mentions_by_source
FROM visible
GROUP BY division, territory, bucket;

CREATE OR REPLACE VIEW node_metrics_1d SQL SECURITY INVOKER AS
SELECT division, territory, bucket, day,
    countIf(is_mention) AS mentions,
    uniqExactIf(author_key, has_voice) AS voices,
    countIf(is_mention AND kind = 'post') AS posts,
    countIf(is_mention AND kind = 'reply') AS replies,
    countIf(by_company AND kind = 'post') AS broadcasts,
    countIf(by_company AND kind = 'reply') AS answers,
    countIf(NOT by_company AND kind = 'share') AS shares,
    countIf(NOT by_company AND kind = 'reaction') AS reactions,
    sumMapIf(map(source, toUInt64(1)), is_mention) AS mentions_by_source
FROM visible_by_day
GROUP BY division, territory, bucket, day;

-- The same for the nodes whose names match, as in LIKE, with from <= bucket < to. Here the filters reach every table,
-- also those that say what is stale: faster than the plain views on large data, and equal to them.
CREATE OR REPLACE VIEW node_metrics_1h_of SQL SECURITY INVOKER AS
SELECT division, territory, hour AS bucket, mentions, voices, posts, replies, broadcasts, answers, shares, reactions,
    mentions_by_source
FROM hours
WHERE division LIKE {division:String} AND territory LIKE {territory:String}
    AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
    AND events > 0 AND (balance = 0 OR hour < (SELECT max(before) FROM frozen))
UNION ALL
SELECT division, territory, hour AS bucket, mentions, voices, posts, replies, broadcasts, answers, shares, reactions,
    mentions_by_source
FROM made_hours
WHERE division LIKE {division:String} AND territory LIKE {territory:String}
    AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
    AND (division, territory, hour) IN
    (
        SELECT division, territory, hour FROM hours
        WHERE division LIKE {division:String} AND territory LIKE {territory:String}
            AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
            AND balance != 0 AND hour >= (SELECT max(before) FROM frozen)
    );

CREATE OR REPLACE VIEW node_metrics_1m_of SQL SECURITY INVOKER AS
SELECT * FROM node_metrics_1m
WHERE division LIKE {division:String} AND territory LIKE {territory:String}
    AND bucket >= {from:DateTime('UTC')} AND bucket < {to:DateTime('UTC')};

-- The days are cut by the clock of each territory, so a filter on them cannot prune: a wider one on time does. It is
-- reckoned in 64 bits: the end of what a DateTime holds is a range's end like any other.
CREATE OR REPLACE VIEW node_metrics_1d_of SQL SECURITY INVOKER AS
SELECT division, territory, bucket, day,
    countIf(is_mention) AS mentions,
    uniqExactIf(author_key, has_voice) AS voices,
    countIf(is_mention AND kind = 'post') AS posts,
    countIf(is_mention AND kind = 'reply') AS replies,
    countIf(by_company AND kind = 'post') AS broadcasts,
    countIf(by_company AND kind = 'reply') AS answers,
    countIf(NOT by_company AND kind = 'share') AS shares,
    countIf(NOT by_company AND kind = 'reaction') AS reactions,
    sumMapIf(map(source, toUInt64(1)), is_mention) AS mentions_by_source
FROM visible_by_day
WHERE division LIKE {division:String} AND territory LIKE {territory:String}
    AND time >= {from:DateTime('UTC')} AND time < toDateTime64({to:DateTime('UTC')}, 3, 'UTC') + INTERVAL 50 HOUR
    AND bucket >= {from:DateTime('UTC')} AND bucket < {to:DateTime('UTC')}
GROUP BY division, territory, bucket, day;

-- All that happened in from <= time < to, per node; voices are exact over the whole of it.
CREATE OR REPLACE VIEW node_window SQL SECURITY INVOKER AS
SELECT division, territory,
    countIf(is_mention) AS mentions,
    uniqExactIf(author_key, has_voice) AS voices,
    countIf(is_mention AND kind = 'post') AS posts,
    countIf(is_mention AND kind = 'reply') AS replies,
    countIf(by_company AND kind = 'post') AS broadcasts,
    countIf(by_company AND kind = 'reply') AS answers,
    countIf(NOT by_company AND kind = 'share') AS shares,
    countIf(NOT by_company AND kind = 'reaction') AS reactions,
    sumMapIf(map(source, toUInt64(1)), is_mention) AS mentions_by_source
FROM visible
WHERE time >= {from:DateTime64(3, 'UTC')} AND time < {to:DateTime64(3, 'UTC')}
GROUP BY division, territory;
