package nodes

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"path"
	"time"
)

// Watch looks at the nodes directory dir every so often until ctx ends. It calls changed with the rules when it has
// read them for the first time and whenever they have become others, and broken once for every state of the
// directory that cannot be read as rules; the rules given last stay in force then. Both are called from this
// goroutine, so a slow one delays the next look.
//
// A look compares sizes and times of files. Only when some differ are files read, and a state that was seen changing
// is believed when two looks in a row find it the same: an editor or a copy may be in the middle of its work.
func Watch(ctx context.Context, dir string, every time.Duration, changed func(*Rules), broken func(error)) {
	w := watcher{dir: dir, changed: changed, broken: broken}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	w.read()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look()
		}
	}
}

type watcher struct {
	dir     string
	changed func(*Rules)
	broken  func(error)

	seen    [sha256.Size]byte // the state of the files that was read last
	pending [sha256.Size]byte // the state found by the last look
	version string            // of the rules given last
	fault   string            // reported last, "" when the directory is in order
}

func (w *watcher) look() {
	state := stateOf(os.DirFS(w.dir))
	settled := state == w.pending
	w.pending = state
	if settled && state != w.seen {
		w.read()
	}
}

// read loads the directory. The state is taken before, so a change in between is found by the next look.
func (w *watcher) read() {
	w.seen = stateOf(os.DirFS(w.dir))
	w.pending = w.seen
	rules, err := LoadDir(w.dir)
	switch {
	case err != nil:
		if err.Error() != w.fault {
			w.fault = err.Error()
			w.broken(err)
		}
	case rules.Version() != w.version:
		w.version, w.fault = rules.Version(), ""
		w.changed(rules)
	default:
		w.fault = ""
	}
}

// stateOf sums up names, sizes and times of everything that rules could be made from.
func stateOf(fsys fs.FS) (state [sha256.Size]byte) {
	sum := sha256.New()
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		entries, err := fs.ReadDir(fsys, dir)
		if err != nil {
			sum.Write([]byte(dir + " unreadable\n"))
			return
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if ignored(name) {
				continue
			}
			info, err := fs.Stat(fsys, name)
			switch {
			case err != nil:
				sum.Write([]byte(name + " unreadable\n"))
			case info.IsDir() && depth < maxDepth:
				walk(name, depth+1)
			case !info.IsDir():
				line, _ := info.ModTime().MarshalBinary()
				sum.Write([]byte(name))
				sum.Write(append(line, byte(info.Size()), byte(info.Size()>>8), byte(info.Size()>>16), byte(info.Size()>>24)))
			}
		}
	}
	walk(".", 0)
	sum.Sum(state[:0])
	return state
}
