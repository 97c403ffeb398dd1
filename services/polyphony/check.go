package main

import (
	"errors"
	"fmt"
	"os"

	"polyphony/pkg/nodes"
)

// checkCommand validates a nodes directory.
type checkCommand struct {
	Nodes string `default:"./deploy/nodes" placeholder:"DIR" help:"The nodes directory (default ${default})."`
}

func (c *checkCommand) Run(std streams) error {
	rules, err := loadNodes(c.Nodes, streams{out: std.out, err: std.out})
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s: %d divisions, %d territories, %d business units, version %s\n",
		c.Nodes, len(rules.Divisions()), len(rules.Territories()), len(rules.BusinessUnits()), rules.Version())
	return nil
}

// loadNodes loads a directory and lists its faults on std.err, one a line.
func loadNodes(dir string, std streams) (*nodes.Rules, error) {
	rules, err := nodes.LoadDir(dir)
	var faults nodes.Faults
	if errors.As(err, &faults) {
		for _, fault := range faults {
			fmt.Fprintln(std.err, fault)
		}
		return nil, errSaid
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such nodes directory; name one with --nodes", dir)
	}
	return rules, err
}
