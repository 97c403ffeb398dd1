package nodes

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watching starts a watch over a directory on disk and returns channels of what it reports.
func watching(t *testing.T, archive string) (dir string, changed chan *Rules, broken chan error) {
	t.Helper()
	dir = t.TempDir()
	for name, f := range directory(usual + archive) {
		save(t, filepath.Join(dir, name), string(f.Data))
	}
	changed, broken = make(chan *Rules, 10), make(chan error, 10)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, dir, 5*time.Millisecond, func(r *Rules) { changed <- r }, func(err error) { broken <- err })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return dir, changed, broken
}

func save(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+"~", []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+"~", name); err != nil {
		t.Fatal(err)
	}
}

func receive[T any](t *testing.T, what string, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func TestWatchGivesEveryGoodVersionAndReportsBrokenOnesOnce(t *testing.T) {
	dir, changed, broken := watching(t, "-- divisions/d.yaml --\ndivision: d\nlisten: one\n")
	file := filepath.Join(dir, "divisions", "d.yaml")
	first := receive(t, "the first version", changed)

	save(t, file, "division: d\nlisten: two\n")
	second := receive(t, "the second version", changed)
	if second.Version() == first.Version() {
		t.Error("a changed file gave the same version")
	}

	save(t, file, "division: d\nlisten: two three\n")
	receive(t, "the fault", broken)
	save(t, filepath.Join(dir, "divisions", "e.yaml"), "division: e\n")
	receive(t, "the second fault", broken)

	if err := os.Remove(filepath.Join(dir, "divisions", "e.yaml")); err != nil {
		t.Fatal(err)
	}
	receive(t, "the first fault again", broken)
	save(t, file, "division: d\nlisten: four\n")
	fourth := receive(t, "the mended version", changed)
	if fourth.Version() == second.Version() {
		t.Error("the mended version is that of before")
	}
	if len(broken) != 0 || len(changed) != 0 {
		t.Errorf("%d more changes and %d more faults than there were", len(changed), len(broken))
	}
}

func TestWatchIsSilentAboutWhatChangesNothing(t *testing.T) {
	dir, changed, broken := watching(t, "-- divisions/d.yaml --\ndivision: d\nlisten: one\n")
	first := receive(t, "the first version", changed)
	save(t, filepath.Join(dir, "divisions", "d.yaml"), "division: d\nlisten: one\n")
	save(t, filepath.Join(dir, "README.md"), "nothing")
	save(t, filepath.Join(dir, "territories", "new.yaml"), "territory: new\ncountries: [JP]\n")
	second := receive(t, "the version with another territory", changed)
	if second.Version() == first.Version() || len(second.Territories()) != 3 {
		t.Errorf("got version %s with %d territories after %s", second.Version(), len(second.Territories()), first.Version())
	}
	if len(broken) != 0 || len(changed) != 0 {
		t.Errorf("%d more changes and %d faults", len(changed), len(broken))
	}
}

func TestWatchOutlivesADirectoryThatGoesAway(t *testing.T) {
	dir, changed, broken := watching(t, "-- divisions/d.yaml --\ndivision: d\nlisten: one\n")
	first := receive(t, "the first version", changed)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	receive(t, "the fault", broken)
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	save(t, filepath.Join(dir, "divisions", "d.yaml"), "division: d\nlisten: two\n")
	// The directory may be seen as it was first: then the same rules are in force and nothing is said.
	if again := receive(t, "the next version", changed); again.Version() == first.Version() {
		t.Error("the same version was given twice")
	}
}

// TestAMountedVolumeLoads reads a directory made as Kubernetes makes mounted ones: of symbolic links to a hidden folder
// that is swapped as a whole.
func TestAMountedVolumeLoads(t *testing.T) {
	dir := t.TempDir()
	for name, f := range directory(usual + "-- divisions/d.yaml --\ndivision: d\nlisten: one\n") {
		save(t, filepath.Join(dir, "..2026_01", name), string(f.Data))
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..2026_01", "..data")
	for _, name := range []string{"company.yaml", "divisions", "territories"} {
		link(filepath.Join("..data", name), name)
	}
	r, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Divisions()) != 1 || len(r.Territories()) != 2 {
		t.Errorf("got %d divisions and %d territories", len(r.Divisions()), len(r.Territories()))
	}

	link(".", "loop")
	if _, err := LoadDir(dir); err == nil {
		t.Error("a directory that contains itself was loaded")
	}
}
