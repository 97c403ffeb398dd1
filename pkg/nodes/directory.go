package nodes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of a nodes directory. They are far above what people write by hand and keep a mistake, such as pointing at a
// home directory or a damaged archive, from filling the memory of every service.
const (
	maxFile    = 256 << 10 // one YAML file: a business unit with thousands of terms takes about 100 KiB
	maxLexicon = 4 << 20   // one safety lexicon: 100,000 terms
	maxFiles   = 4096      // 1,000 business units, divisions and territories several times over
	maxTotal   = 16 << 20  // all files together, as they are
	maxArchive = 960 << 10 // all files compressed: one bucket entry, below the 1 MiB of a NATS message
	maxDepth   = 4         // folders below safety/; also ends loops of symbolic links
)

// source is one file that rules are made from. Name is relative to the directory, with slashes.
type source struct {
	name string
	data []byte
}

// folders says what a folder holds; a file is read by the folder it stands in.
var folders = map[string]string{"divisions": "division", "territories": "territory", "business-units": "business_unit"}

// readSources collects the files of a directory that concern Polyphony, sorted by name. It goes by fs.Stat and not by
// the directory entry, so that a mounted Kubernetes volume, which is made of symbolic links, reads like a plain folder.
func readSources(fsys fs.FS) ([]source, Faults) {
	var files []source
	var faults Faults
	total := 0
	fault := func(name, format string, args ...any) {
		faults = append(faults, Fault{File: name, Message: fmt.Sprintf(format, args...)})
	}
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		entries, err := fs.ReadDir(fsys, dir)
		if err != nil {
			fault(dir, "cannot read the directory: %v", plain(err))
			return
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if ignored(name) {
				continue
			}
			info, err := fs.Stat(fsys, name)
			if err != nil {
				fault(name, "cannot read: %v", plain(err))
				continue
			}
			if info.IsDir() {
				if depth < maxDepth {
					walk(name, depth+1)
				}
				continue
			}
			wanted, limit, problem := placed(name)
			if problem != "" {
				fault(name, "%s", problem)
			}
			if !wanted {
				continue
			}
			if !info.Mode().IsRegular() {
				fault(name, "not a regular file")
				continue
			}
			if len(files) == maxFiles || total > maxTotal {
				continue
			}
			data, err := readBounded(fsys, name, limit)
			if err != nil {
				fault(name, "%v", plain(err))
				continue
			}
			total += len(data)
			files = append(files, source{name, data})
			if len(files) == maxFiles {
				fault(name, "more than %d files: is this a nodes directory?", maxFiles)
			}
			if total > maxTotal {
				fault(name, "the files take more than %d MiB together", maxTotal>>20)
			}
		}
	}
	walk(".", 0)
	slices.SortFunc(files, func(a, b source) int { return strings.Compare(a.name, b.name) })
	return files, faults
}

// ignored reports whether name is an editor's or the system's business: hidden files and backups.
func ignored(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, ".") || strings.HasSuffix(base, "~")
}

// placed decides by its place whether a file is part of the rules, how large it may be, and what is wrong with its place.
func placed(name string) (wanted bool, limit int, problem string) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	top, _, _ := strings.Cut(name, "/")
	ext := path.Ext(base)
	switch {
	case top == "safety" && dir != "":
		return true, maxLexicon, ""
	case ext != ".yaml" && ext != ".yml":
		return false, 0, ""
	case name == "company.yaml":
		return true, maxFile, ""
	case ext == ".yml":
		return false, 0, fmt.Sprintf("files end in .yaml here: rename it to %s", strings.TrimSuffix(base, ext)+".yaml")
	case folders[dir] != "":
		return true, maxFile, ""
	case base == "company.yaml":
		return false, 0, "company.yaml belongs at the top of the nodes directory"
	case dir == "":
		return false, 0, "company.yaml is the only file here at the top; others belong in divisions/, territories/ or business-units/" +
			didYouMean(base, []string{"company.yaml"})
	}
	known := []string{"divisions", "territories", "business-units", "safety"}
	return false, 0, fmt.Sprintf("nobody reads the folder %q; files belong in divisions/, territories/ or business-units/%s", dir, didYouMean(top, known))
}

func readBounded(fsys fs.FS, name string, limit int) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read: %w", err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("larger than %d KiB", limit>>10)
	}
	return data, nil
}

// plain drops the operation and path that a file error repeats: the fault names the file already.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// pack writes files as a gzipped tar without times, owners or modes: the same files give the same bytes. The version
// is made from the tar before compression, so it does not depend on a compressor either.
func pack(files []source) (version string, archive []byte, err error) {
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o444, Format: tar.FormatPAX}
		if err := tw.WriteHeader(header); err != nil {
			return "", nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
		if _, err := tw.Write(f.data); err != nil {
			return "", nil, fmt.Errorf("packing %s: %w", f.name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return "", nil, fmt.Errorf("packing: %w", err)
	}
	sum := sha256.Sum256(plain.Bytes())
	zw, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return "", nil, fmt.Errorf("packing: %w", err)
	}
	if _, err := zw.Write(plain.Bytes()); err != nil {
		return "", nil, fmt.Errorf("packing: %w", err)
	}
	if err := zw.Close(); err != nil {
		return "", nil, fmt.Errorf("packing: %w", err)
	}
	return hex.EncodeToString(sum[:8]), packed.Bytes(), nil
}

// unpack reads what pack wrote. It trusts nothing: an archive that would unpack to more than a directory may hold,
// or holds a file that a directory would not, is refused.
func unpack(archive []byte) ([]source, error) {
	if len(archive) > maxArchive {
		return nil, fmt.Errorf("archive larger than %d KiB", maxArchive>>10)
	}
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("not an archive of rules: %w", err)
	}
	// Half a KiB of header and as much of padding stand beside every file.
	bounded := io.LimitReader(zr, maxTotal+maxLexicon+maxFiles*2048)
	tr := tar.NewReader(bounded)
	var files []source
	total := 0
	for {
		header, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not an archive of rules: %w", err)
		}
		wanted, limit, _ := placed(header.Name)
		if !wanted || header.Typeflag != tar.TypeReg || !fs.ValidPath(header.Name) {
			return nil, fmt.Errorf("not an archive of rules: unexpected %q", header.Name)
		}
		data, err := io.ReadAll(io.LimitReader(tr, int64(limit)+1))
		if err != nil {
			return nil, fmt.Errorf("not an archive of rules: %w", err)
		}
		total += len(data)
		if len(data) > limit || total > maxTotal+maxLexicon || len(files) == maxFiles {
			return nil, errors.New("not an archive of rules: larger than a nodes directory may be")
		}
		files = append(files, source{header.Name, data})
	}
	// Reading to the end checks the sum of the compressed stream.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return nil, fmt.Errorf("not an archive of rules: %w", err)
	}
	if !slices.IsSortedFunc(files, func(a, b source) int { return strings.Compare(a.name, b.name) }) {
		return nil, errors.New("not an archive of rules: files out of order")
	}
	return files, nil
}
