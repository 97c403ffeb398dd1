package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"polyphony/pkg/nodes"
	"polyphony/pkg/service"
	"polyphony/services/polyphony/generate"
)

// generateCommand writes invented events and, if asked, what they must be counted as.
type generateCommand struct {
	Seed   uint64    `default:"1" help:"The same seed makes the same events (default ${default})."`
	Events int       `default:"10000" help:"How many lines (default ${default})."`
	Rate   int       `help:"At most so many lines a second (default: as fast as they are taken)."`
	End    time.Time `format:"2006-01-02T15:04:05Z07:00" placeholder:"TIME" help:"When the last event happened, RFC 3339 (default: now, to the hour)."`
	Nodes  string    `default:"./deploy/nodes" placeholder:"DIR" help:"The nodes directory (default ${default})."`
	Out    string    `placeholder:"FILE" help:"Where events go (default: standard output)."`
	Truth  string    `placeholder:"FILE" help:"Where {division,territory,bucket,mentions,voices} per hour go."`

	Matching   float64 `default:"0.4" help:"Share of events that concern a node (default ${default})."`
	Duplicates float64 `default:"0.05" help:"Share of lines that repeat an earlier one (default ${default})."`
	Invalid    float64 `default:"0.01" help:"Share of lines that must be rejected (default ${default})."`
	PostsOnly  bool    `name:"posts-only" help:"Nothing refers to another event: no replies, shares and reactions."`
	LineBytes  int     `name:"line-bytes" placeholder:"N" help:"Average length of a line (default: as long as they come)."`
}

func (g *generateCommand) Run(ctx context.Context, std streams) error {
	rules, err := loadNodes(g.Nodes, std)
	if err != nil {
		return err
	}
	end := g.End
	if end.IsZero() {
		end = time.Now().UTC().Truncate(time.Hour)
	}
	mix := generate.Default(g.Seed, g.Events, end)
	mix.Matching, mix.Duplicates, mix.Invalid, mix.PadTo, mix.PostsOnly = g.Matching, g.Duplicates, g.Invalid, g.LineBytes, g.PostsOnly
	for _, share := range []float64{mix.Matching, mix.Duplicates, mix.Invalid} {
		if !(share >= 0 && share <= 1) {
			return &service.UsageError{Err: fmt.Errorf("%v is no share: want 0 to 1", share)}
		}
	}
	generator, err := generate.New(planOf(rules), mix)
	if err != nil {
		return err
	}
	err = toFile(g.Out, std.out, func(w io.Writer) error { return generator.Write(ctx, w, g.Events, g.Rate, false) })
	if err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped after %d events", generator.Tally().Lines)
	}
	if g.Truth == "" {
		return nil
	}
	err = toFile(g.Truth, std.out, func(w io.Writer) error { return generate.WriteTruth(w, generator.Truth()) })
	if err != nil {
		return fmt.Errorf("writing the truth: %w", err)
	}
	return nil
}

// toFile writes a new file, or std when there is no name.
func toFile(name string, std io.Writer, write func(io.Writer) error) error {
	if name == "" || name == "-" {
		return write(std)
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

// planOf tells the generator what it may plant: plain configuration, nothing that matches or routes.
func planOf(rules *nodes.Rules) generate.Plan {
	plan := generate.Plan{Lateness: rules.Company().Lateness, Reserved: rules.Company().Names}
	for _, t := range rules.Territories() {
		plan.Territories = append(plan.Territories, generate.Territory{Name: t.ID, Countries: t.Countries, Languages: t.Languages})
	}
	for _, d := range rules.Divisions() {
		division := generate.Division{Name: d.ID, Listen: d.Listen.String(), Territories: d.Territories}
		for _, p := range d.Products {
			division.Products = append(division.Products, p.Names...)
			division.Hashtags = append(division.Hashtags, p.Hashtags...)
		}
		for _, c := range d.Competitors {
			division.Competitors = append(append(division.Competitors, c.Names...), c.Hashtags...)
		}
		plan.Divisions = append(plan.Divisions, division)
	}
	for _, u := range rules.BusinessUnits() {
		unit := generate.Unit{Name: u.ID, Division: u.Division}
		if u.Listen != nil {
			unit.Listen = u.Listen.String()
		}
		if u.Mute != nil {
			unit.Mute = u.Mute.String()
		}
		for _, a := range u.Accounts {
			unit.Accounts = append(unit.Accounts, generate.Account{Source: a.Source, ID: a.ID, Territory: a.Territory})
		}
		for _, p := range u.Products {
			unit.Local = append(append(unit.Local, p.Names...), p.Hashtags...)
		}
		plan.Units = append(plan.Units, unit)
	}
	return plan
}
