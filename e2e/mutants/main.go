// Command mutants puts deliberate faults into a copy of this checkout, one after the other, and shows which test notices
// each. A fault that no test notices is a missing test. Names as arguments take only these.
//
// A fault is a patch beside this file: a sentence that says it, "Killed by: " and the command of its test, an empty line,
// and a diff, as `git diff -U2` writes it.
//
//	make mutants
//	go run ./e2e/mutants shallow-adoption resend-revives
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// limit bounds one test: a fault may show as waiting for ever.
const limit = "3m"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	mutants, err := read("e2e/mutants")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if mutants, err = chosen(mutants, names); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "polyphony-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyCheckout(ctx, dir); err != nil {
		return err
	}
	for _, m := range mutants {
		if err := m.patch(dir, "--dry-run"); err != nil {
			return err
		}
	}
	noticed := 0
	for _, m := range mutants {
		fmt.Printf("%-26s", m.name)
		start := time.Now()
		killer, err := m.try(ctx, dir)
		if err != nil {
			fmt.Println()
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if killer == "" {
			killer = "NOT NOTICED"
		} else {
			noticed++
		}
		fmt.Printf(" %4s  %s\n", time.Since(start).Round(time.Second), killer)
	}
	fmt.Printf("%d faults, %d noticed\n", len(mutants), noticed)
	if noticed < len(mutants) {
		return errors.New("a fault that no test notices is a missing test")
	}
	return nil
}

// mutant is a fault.
type mutant struct {
	name string
	path string // of the patch
	test string // the command that must fail
}

// read gives the faults of a directory, by name.
func read(dir string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no %s/*.patch here: run it in the checkout", dir)
	}
	var mutants []mutant
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(string(text), "\nKilled by: ")
		test, _, _ := strings.Cut(rest, "\n")
		if test == "" {
			return nil, fmt.Errorf("%s: its second line is not \"Killed by: COMMAND\"", path)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		mutants = append(mutants, mutant{strings.TrimSuffix(filepath.Base(path), ".patch"), path, test})
	}
	return mutants, nil
}

// chosen gives the faults of these names.
func chosen(mutants []mutant, names []string) (list []mutant, err error) {
	for _, name := range names {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q: they are e2e/mutants/*.patch", name)
		}
		list = append(list, mutants[i])
	}
	return list, nil
}

// copyCheckout copies what git knows of this checkout, as it stands now, and the engine.
func copyCheckout(ctx context.Context, dir string) error {
	script := `git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -cf - | tar -xf - -C "$1" &&
		mkdir -p "$1/deploy/embedded" && cd deploy/embedded && if [ -e node_modules ]; then ln -sfn "$PWD/node_modules" "$1/deploy/embedded/"; fi`
	if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the checkout: %w\n%s", err, out)
	}
	return nil
}

// try puts the fault in, runs its test, takes the fault out, and gives the first test that failed, "" for none.
func (m mutant) try(ctx context.Context, dir string) (killer string, err error) {
	if err := m.patch(dir); err != nil {
		return "", err
	}
	killer, err = m.kill(ctx, dir)
	return killer, errors.Join(err, m.patch(dir, "--reverse"))
}

// patch changes the checkout in dir, where the code is what it was when the patch was made.
func (m mutant) patch(dir string, options ...string) error {
	cmd := exec.Command("patch", append(options, "--silent", "--force", "--strip=1", "--fuzz=0", "--input="+m.path)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s no longer applies, the code has changed (%w):\n%s"+
			"put the same fault into the code of now, write it with git diff -U2, or remove the patch if the fault cannot be made any more",
			m.name, err, out)
	}
	return nil
}

// kill runs the test and gives the first one that failed.
func (m mutant) kill(ctx context.Context, dir string) (killer string, err error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", strings.Replace(m.test, "go test ", "go test -timeout "+limit+" ", 1))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		return "", ctx.Err()
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			return name, nil
		}
		if strings.HasPrefix(line, "panic: test timed out") {
			return "no end within " + limit, nil
		}
	}
	return "", fmt.Errorf("%s failed otherwise than by a test:\n%s", m.test, out)
}
