// Command polyphony is the command line: everything in one process (up), and the tools around it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"polyphony/pkg/embedded"
	"polyphony/pkg/service"
)

const about = `Polyphony turns what people say on social networks into metrics per node, a division in a territory.

Start with:  polyphony up --demo`

// commands are the subcommands; each has its file.
type commands struct {
	Up       upCommand       `cmd:"" help:"Run everything in one process: NATS, ClickHouse, the three services."`
	Check    checkCommand    `cmd:"" help:"Validate a nodes directory; every fault as FILE:LINE:COLUMN: message."`
	Try      tryCommand      `cmd:"" help:"Show what events would become: which nodes, why, or which reject. Stores nothing."`
	Generate generateCommand `cmd:"" help:"Make seeded, realistic events for a nodes directory, and the truth about them."`
	Send     sendCommand     `cmd:"" help:"Post NDJSON files to an ingester. Safe to run twice."`
	Replay   replayCommand   `cmd:"" help:"Process again what the streams still hold. Always safe."`
	Rejects  rejectsCommand  `cmd:"" help:"List, show and replay what could not be processed."`
	Migrate  migrateCommand  `cmd:"" help:"Create or upgrade the ClickHouse schema. Forward only, safe to repeat."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

func main() {
	embedded.RunChildIfAsked()
	ctx, stop := service.SignalContext()
	code := execute(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are a command's standard input, output and error.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// execute runs one command line and gives its exit code.
func execute(ctx context.Context, args []string, std streams) (code int) {
	exited := false
	parser, err := kong.New(&commands{}, kong.Name("polyphony"), kong.Description(about), kong.UsageOnError(),
		kong.Writers(std.out, std.err), kong.Exit(func(int) { exited = true }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(std))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	switch {
	case exited: // help was asked for and given
		return service.ExitOK
	case err != nil:
		fmt.Fprintf(std.err, "polyphony: %v; see polyphony --help\n", err)
		return service.ExitUsage
	}
	err = command.Run()
	var usage *service.UsageError
	switch {
	case err == nil:
		return service.ExitOK
	case errors.Is(err, errSaid):
		return service.ExitFault
	case errors.As(err, &usage):
		fmt.Fprintf(std.err, "polyphony: %v\n", err)
		return service.ExitUsage
	}
	fmt.Fprintf(std.err, "polyphony: %v\n", err)
	return service.ExitFault
}

// errSaid ends a command with exit 1 that has already said why.
var errSaid = errors.New("said")

type versionCommand struct{}

func (versionCommand) Run(std streams) error {
	_, err := fmt.Fprintln(std.out, "polyphony", service.Version())
	return err
}
