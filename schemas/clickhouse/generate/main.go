// Program generate writes the file of schemas/clickhouse that defines the metrics, from the one list of them in
// metrics.go and the text around it in metrics.sql.tmpl.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"strings"
	"text/template"
)

//go:generate go run .

// file is what is written. One that was released stays as it is: then this names the next.
const file = "0002_metrics.sql"

func main() {
	text, err := render(metrics)
	if err == nil {
		err = os.WriteFile("../"+file, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

//go:embed metrics.sql.tmpl
var around string

// render puts what a list of metrics comes to into the text around it.
func render(list []metric) ([]byte, error) {
	each := func(form func(metric) string) []string {
		out := make([]string, len(list))
		for i, m := range list {
			out[i] = form(m)
		}
		return out
	}
	names := each(func(m metric) string { return m.name })
	parsed, err := template.New(file).Parse(around)
	if err != nil {
		return nil, fmt.Errorf("parsing the template: %w", err)
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, map[string]any{
		"Version":  formula,
		"Names":    wrap(4, names),
		"Formulas": strings.Join(each(func(m metric) string { return m.formula + " AS " + m.name }), ",\n    "),
		"Columns":  strings.Join(each(func(m metric) string { return fmt.Sprintf("%-18s %s", m.name, m.kind) }), ",\n    "),
		"Sealed":   wrap(4, each(func(m metric) string { return m.sealed() + " AS " + m.name })),
		"Nothing":  wrap(8, each(func(m metric) string { return m.nothing() + " AS " + m.name })),
		"Inner":    wrap(8, names),
	})
	if err != nil {
		return nil, fmt.Errorf("filling in the template: %w", err)
	}
	return out.Bytes(), nil
}

// wrap joins items with commas into lines of at most 118 characters, indented from the second on.
func wrap(indent int, items []string) string {
	var b strings.Builder
	width := indent
	for i, item := range items {
		if i > 0 {
			b.WriteString(",")
			width++
			if width+1+len(item) > 118 {
				b.WriteString("\n" + strings.Repeat(" ", indent))
				width = indent
			} else {
				b.WriteString(" ")
				width++
			}
		}
		b.WriteString(item)
		width += len(item)
	}
	return b.String()
}
