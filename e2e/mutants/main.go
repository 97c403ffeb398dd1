// Command mutants puts deliberate faults into a copy of this checkout, one after the other, and shows which test notices
// each. A fault that no test notices is a missing test. Names as arguments take only these.
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

// limit bounds the test of one mutant: a fault may show as waiting for ever.
const limit = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	patches, err := filepath.Glob("e2e/mutants/*.patch")
	if err != nil || len(patches) == 0 {
		return errors.New("no e2e/mutants/*.patch here: run it in the checkout")
	}
	dir, err := os.MkdirTemp("", "polyphony-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyCheckout(ctx, dir); err != nil {
		return err
	}
	survived := 0
	for _, path := range patches {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		start := time.Now()
		verdict, err := try(ctx, dir, path)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if verdict == "" {
			survived++
			verdict = "SURVIVED"
		}
		fmt.Printf("%-24s %6s  %s\n", name, time.Since(start).Round(time.Second), verdict)
	}
	if survived > 0 {
		return fmt.Errorf("%d survived", survived)
	}
	return nil
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

// try applies a patch, runs the tests that it names, takes it back, and gives the first test that failed, "" for none.
func try(ctx context.Context, dir, path string) (killer string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), "\nKilled by: ")
	test, _, _ := strings.Cut(rest, "\n")
	if test == "" {
		return "", errors.New("the patch does not say \"Killed by: COMMAND\"")
	}
	for _, direction := range []string{"", "--reverse"} {
		if direction == "--reverse" {
			killer, err = kill(ctx, dir, test)
		}
		patch := exec.Command("patch", "-s", "-p1", "-i", path)
		if direction != "" {
			patch.Args = append(patch.Args, direction)
		}
		patch.Dir = dir
		if out, patchErr := patch.CombinedOutput(); patchErr != nil {
			return "", fmt.Errorf("applying the patch: %w\n%s", patchErr, out)
		}
	}
	return killer, err
}

// kill runs a test command and gives the first test that failed.
func kill(ctx context.Context, dir, test string) (killer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", test)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", nil
	case context.Cause(ctx) == context.DeadlineExceeded:
		return fmt.Sprintf("%s does not end", test), nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			return name, nil
		}
	}
	return "", fmt.Errorf("%s failed otherwise than by a test:\n%s", test, out)
}
