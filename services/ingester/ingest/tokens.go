package ingest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"polyphony/pkg/social"
)

// Tokens says who may send events of which sources. A nil *Tokens lets everybody send everything.
type Tokens struct{ byHash map[[sha256.Size]byte]grant }

// grant is the set of sources of one token; nil means all.
type grant map[string]bool

// ReadTokens reads lines of the form "sha256:HEX source[,source]|*". Empty lines and lines starting with # are
// skipped. Errors name the line, never a token.
func ReadTokens(r io.Reader) (*Tokens, error) {
	t := &Tokens{byHash: map[[sha256.Size]byte]grant{}}
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		digits, ok := strings.CutPrefix(fields[0], "sha256:")
		sum, err := hex.DecodeString(digits)
		if !ok || err != nil || len(sum) != sha256.Size || len(fields) != 2 {
			return nil, fmt.Errorf("line %d: want 'sha256:HEX source[,source]' or 'sha256:HEX *'", n)
		}
		g, err := parseGrant(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		t.byHash[[sha256.Size]byte(sum)] = g
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading tokens: %w", err)
	}
	if len(t.byHash) == 0 {
		return nil, fmt.Errorf("no token in the file: nobody could send")
	}
	return t, nil
}

func parseGrant(list string) (grant, error) {
	if list == "*" {
		return nil, nil
	}
	g := grant{}
	for _, source := range strings.Split(list, ",") {
		if !social.ValidName(source) {
			return nil, fmt.Errorf("source %q: want [a-z][a-z0-9-]{0,31}", source)
		}
		g[source] = true
	}
	return g, nil
}

// grant finds what an Authorization header allows. Hashing makes the look-up independent of how much of a token is
// right.
func (t *Tokens) grant(authorization string) (grant, bool) {
	if t == nil {
		return nil, true
	}
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil, false
	}
	g, ok := t.byHash[sha256.Sum256([]byte(strings.TrimSpace(token)))]
	return g, ok
}

func (g grant) allows(source string) bool { return g == nil || g[source] }

// OpenTokens reads the file that POLYPHONY_TOKENS_FILE names; no name means no tokens.
func OpenTokens(path string) (*Tokens, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("POLYPHONY_TOKENS_FILE: %w", err)
	}
	defer file.Close()
	tokens, err := ReadTokens(file)
	if err != nil {
		return nil, fmt.Errorf("POLYPHONY_TOKENS_FILE: %s: %w", path, err)
	}
	return tokens, nil
}
