// Package example embeds the example company, so that the command line can show something before anybody has written
// a nodes directory of their own. All its names are invented.
package example

import "embed"

// Files holds the nodes directory of the example company.
//
//go:embed company.yaml divisions territories business-units safety
var Files embed.FS
