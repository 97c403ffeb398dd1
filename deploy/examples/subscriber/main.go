// Program subscriber keeps a correct local copy of the mentions of one node, or of several, from Polyphony's public
// stream. It is an example to copy from: it uses the NATS client and the standard library, and nothing of Polyphony.
//
// Read it in this order: main.go says what it does, subscribe.go reads the stream, copy.go is the rule of what holds,
// file.go keeps the copy between two runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

const help = `Keeps a copy of the mentions of a node, from Polyphony's public stream.

  subscriber --nats URL --division NAME --territory NAME [--file PATH] [--once]

  --nats URL         the NATS server, such as nats://127.0.0.1:4222
  --division NAME    a division of the nodes directory, or company, or '*' for all (in quotes: shells expand it)
  --territory NAME   a territory of the nodes directory, or zz, or '*' for all
  --file PATH        keeps the copy in this file, and goes on from there the next time
  --once             reads what the stream holds now, prints the mentions that hold, and ends

Without --once it follows the stream until Ctrl-C and prints a line for each change of the copy:

  + EVENT_KEY DIVISION/TERRITORY VERSION    a mention is new, or says something else now
  - EVENT_KEY DIVISION/TERRITORY VERSION    a mention was taken back

With --once it prints the data of each mention as JSON, one a line, the oldest first. What it has to say besides goes to
standard error.

  subscriber --nats nats://127.0.0.1:4222 --division cardiology --territory '*' --once
  subscriber --nats nats://127.0.0.1:4222 --division '*' --territory at --file mentions.state
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, 1 after a fault, 2 when the command line is wrong.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	say := log.New(errOut, "subscriber: ", 0)
	cfg, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, help)
		return 0
	}
	if err != nil {
		say.Printf("%v (--help explains)", err)
		return 2
	}
	if err := subscribe(ctx, cfg, out, say); err != nil {
		say.Print(err)
		return 1
	}
	return 0
}

// config is what the command line says, and how often the program does what it does by the clock.
type config struct {
	nats, division, territory, file string
	once                            bool

	saveEvery  time.Duration // at most this often, since each time the whole copy is written
	checkEvery time.Duration // whether the stream is still the same one
	retryAfter time.Duration // when NATS has refused something
}

// subject is what the copy is of.
func (c config) subject() string { return "social.mentions." + c.division + "." + c.territory }

// name is a division or a territory as the nodes directory has them, or the wildcard of NATS. Anything else could make
// another subject.
var name = regexp.MustCompile(`^([a-z][a-z0-9-]{0,31}|\*)$`)

func parse(args []string) (config, error) {
	cfg := config{saveEvery: time.Second, checkEvery: 10 * time.Second, retryAfter: time.Second}
	flags := flag.NewFlagSet("subscriber", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // one line is enough, and run prints it
	flags.StringVar(&cfg.nats, "nats", "", "")
	flags.StringVar(&cfg.division, "division", "", "")
	flags.StringVar(&cfg.territory, "territory", "", "")
	flags.StringVar(&cfg.file, "file", "", "")
	flags.BoolVar(&cfg.once, "once", false, "")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	switch {
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected %q", flags.Arg(0))
	case cfg.nats == "":
		return cfg, errors.New("--nats URL is missing")
	case cfg.division == "":
		return cfg, errors.New("--division NAME is missing")
	case cfg.territory == "":
		return cfg, errors.New("--territory NAME is missing")
	case !name.MatchString(cfg.division):
		return cfg, fmt.Errorf("--division %q is not a name and not *", cfg.division)
	case !name.MatchString(cfg.territory):
		return cfg, fmt.Errorf("--territory %q is not a name and not *", cfg.territory)
	}
	fileGiven := false
	flags.Visit(func(f *flag.Flag) { fileGiven = fileGiven || f.Name == "file" })
	if fileGiven && cfg.file == "" {
		return cfg, errors.New("--file has no path")
	}
	return cfg, nil
}
