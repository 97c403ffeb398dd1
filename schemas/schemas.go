// Package schemas holds the contracts of Polyphony in machine-readable form, embedded so that every binary carries them.
package schemas

import "embed"

// ClickHouseFS holds the numbered SQL files of schemas/clickhouse, in the order of their names.
//
//go:embed clickhouse/*.sql
var ClickHouseFS embed.FS

// NodesFS holds the JSON Schemas of the files of a nodes directory, for editors.
//
//go:embed nodes/*.json
var NodesFS embed.FS
