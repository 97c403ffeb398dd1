CREATE TABLE polyphony.selves
(
    `event_key` FixedString(16) CODEC(NONE),
    `part` Enum8('waiting' = 1, 'edited' = 2, 'before' = 3),
    `kept` Bool,
    `expires` DateTime('UTC'),
    `sealed` String CODEC(NONE),
    `time` DateTime64(3, 'UTC'),
    `version` UInt256,
    `is_deleted` UInt8,
    `recorded_time` DateTime64(3, 'UTC') CODEC(Delta(8), LZ4),
    `source` String,
    `kind` Enum8('none' = 0, 'post' = 1, 'reply' = 2, 'share' = 3, 'reaction' = 4, 'follow' = 5, 'view' = 6),
    `author_key` FixedString(16) CODEC(NONE),
    `parent_key` FixedString(16),
    `root_key` FixedString(16),
    `parent_author_key` FixedString(16),
    `via` Enum8('none' = 0, 'text' = 1, 'account' = 2, 'thread' = 3),
    `account` String,
    `owned` Bool,
    `by_company` Bool,
    `bot` Bool,
    `role` Enum8('unknown' = 0, 'patient' = 1, 'caregiver' = 2, 'hcp' = 3, 'employee' = 4, 'partner' = 5, 'company' = 6, 'other' = 7),
    `role_confidence` Float32,
    `lang` String,
    `country` String,
    `country_method` Enum8('none' = 0, 'place' = 1, 'author' = 2, 'account' = 3, 'language' = 4),
    `sentiment` Float32,
    `products` Array(String),
    `competitors` Array(String),
    `topics` Array(String),
    `needs` Array(String),
    `is_question` Bool,
    `ae_elements` UInt8,
    `ae_screened` Bool,
    `ae_serious` Bool,
    `offlabel` Bool,
    `cluster_id` UInt64,
    `followers` Int64,
    `text` String,
    `rules_version` String
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY if(kept, toYYYYMM(expires), toYYYYMMDD(expires))
ORDER BY (event_key, part, author_key)
TTL if(kept, toDateTime(4294944000, 'UTC'), toStartOfDay(expires) + toIntervalDay(1))
SETTINGS index_granularity = 256, allow_experimental_replacing_merge_with_cleanup = 0, merge_selector_base = 16, auto_statistics_types = '', ratio_of_defaults_for_sparse_serialization = 1, merge_with_ttl_timeout = 43200
