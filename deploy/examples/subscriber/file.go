package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Position is up to where the stream has been read. Sequences belong to one stream: one that was deleted and created
// again under the same name counts from 1 again, so the time of its creation is kept with them.
type Position struct {
	Subject  string    `json:"subject"`
	Created  time.Time `json:"created"`
	Sequence uint64    `json:"sequence"`
}

// The file is the position on a line, then an entry of the copy on each line. Both change together, as they must: a
// copy with a later position than its own would miss messages. A database does the same in one transaction.

// load reads what save wrote. No file yet is an empty copy.
func load(path, subject string) (Position, Copy, error) {
	at, held := Position{Subject: subject}, Copy{}
	if path == "" {
		return at, held, nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return at, held, nil
	}
	if err != nil {
		return at, held, err
	}
	defer file.Close()
	lines := json.NewDecoder(bufio.NewReader(file))
	if err := lines.Decode(&at); err != nil {
		return at, held, fmt.Errorf("reading the position in %s: %w", path, err)
	}
	if at.Subject != subject {
		return at, held, fmt.Errorf("%s is a copy of %q, not of %q: choose another file", path, at.Subject, subject)
	}
	for {
		var e Entry
		err := lines.Decode(&e)
		if err == io.EOF {
			return at, held, nil
		}
		if err == nil {
			err = e.check()
		}
		if err != nil {
			return at, held, fmt.Errorf("reading the copy in %s: %w", path, err)
		}
		held.put(e)
	}
}

// save writes the file anew beside the old one, and then puts it in its place: whenever the machine stops, one of the
// two is there and whole.
func save(path string, at Position, held *Copy) error {
	next := path + ".tmp"
	if err := write(next, at, held); err != nil {
		os.Remove(next)
		return fmt.Errorf("saving the copy: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("saving the copy: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("saving the copy: %w", err)
	}
	return nil
}

func write(path string, at Position, held *Copy) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // what people say is for the owner's eyes
	if err != nil {
		return err
	}
	defer file.Close()
	buffer := bufio.NewWriter(file)
	lines := json.NewEncoder(buffer)
	lines.SetEscapeHTML(false) // the data stay as they came
	if err := lines.Encode(at); err != nil {
		return err
	}
	for _, e := range held.entries {
		if err := lines.Encode(e); err != nil {
			return err
		}
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// syncDir makes a rename last.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
