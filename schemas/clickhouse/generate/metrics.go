package main

// formula is the version of the list below. It goes up by one with every release that changes the list.
const formula = 1

// metric is one column of node_metrics_*. Its formula is an aggregate over rows of the view visible, or of visible_by_day.
type metric struct {
	name, formula, kind string
}

const number = "UInt64"

var metrics = []metric{
	{"mentions", "countIf(is_mention)", number},
	{"voices", "uniqExactIf(author_key, has_voice)", number},
	{"posts", "countIf(is_mention AND kind = 'post')", number},
	{"replies", "countIf(is_mention AND kind = 'reply')", number},
	{"broadcasts", "countIf(by_company AND kind = 'post')", number},
	{"answers", "countIf(by_company AND kind = 'reply')", number},
	{"shares", "countIf(NOT by_company AND kind = 'share')", number},
	{"reactions", "countIf(NOT by_company AND kind = 'reaction')", number},
	{"mentions_by_source", "sumMapIf(map(source, toUInt64(1)), is_mention)", "Map(LowCardinality(String), UInt64)"},
}

// sealed takes the metric from the one sealed row among the touches of its hour.
func (m metric) sealed() string {
	if m.kind == number {
		return "max(" + m.name + ")" // less work than anyLastIf; touches have 0
	}
	return "anyLastIf(" + m.name + ", sealed)"
}

// nothing is what a touch has instead of the metric.
func (m metric) nothing() string {
	if m.kind == number {
		return "toUInt64(0)"
	}
	return "defaultValueOfTypeName('" + m.kind + "')"
}
