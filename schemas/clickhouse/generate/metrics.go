package main

// formula is the version of the list below. It goes up by one with every release that changes the list.
const formula = 1

// metric is one column of node_metrics_*. Its formula is an aggregate over rows of the view counted, or of counted_by_day.
type metric struct {
	name, formula, kind string
}

const (
	number = "UInt64"
	signed = "Int64" // of totals, which may fall
)

var metrics = []metric{
	{"mentions", "countIf(is_mention)", number},
	{"voices", "uniqExactIf(author_key, has_voice)", number},
	{"posts", "countIf(is_mention AND is_post)", number},
	{"replies", "countIf(is_mention AND is_reply)", number},
	{"broadcasts", "countIf(by_company AND is_post)", number},
	{"answers", "countIf(by_company AND is_reply)", number},
	{"shares", "sum(share)", signed},
	{"reactions", "sum(reaction)", signed},
	{"views", "sum(view)", signed},
	{"mentions_by_source", "sumMapIf(map(source, toUInt64(1)), is_mention)", "Map(LowCardinality(String), UInt64)"},
}

// sealed takes the metric from the one sealed row among the touches of its hour.
func (m metric) sealed() string {
	switch m.kind { // less work than anyLastIf; touches have 0
	case number:
		return "max(" + m.name + ")"
	case signed:
		return "sum(" + m.name + ")"
	}
	return "anyLastIf(" + m.name + ", sealed)"
}

// nothing is what a touch has instead of the metric.
func (m metric) nothing() string {
	switch m.kind {
	case number, signed:
		return "to" + m.kind + "(0)"
	}
	return "defaultValueOfTypeName('" + m.kind + "')"
}
