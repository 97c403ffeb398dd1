package nodes

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document is one YAML file on its way to becoming a struct. It remembers where every value stood, by its path
// ("accounts[1].territory"), so that whatever is found wrong later, across files too, can point there.
type document struct {
	file   string
	text   string
	lines  []int // byte offset of each line's beginning
	places map[string]place
	faults *Faults
}

// place is a position in a file: line and column from 1, column in characters.
type place struct{ line, column int }

// value is one node of a document with its path.
type value struct {
	doc  *document
	path string
	node ast.Node
}

// object is a mapping whose keys were checked against what the kind of file knows; members is nil when it is none.
type object struct {
	value
	members map[string]value
}

// parseDocument reads a YAML file that must hold one mapping. The second result is false when there is none to go on with.
func parseDocument(file string, data []byte, faults *Faults) (*document, value, bool) {
	d := &document{file: file, text: strings.TrimPrefix(string(data), "\ufeff"), places: map[string]place{}, faults: faults}
	d.lines = append(d.lines, 0)
	for i := range len(d.text) {
		if d.text[i] == '\n' || d.text[i] == '\r' && !strings.HasPrefix(d.text[i:], "\r\n") { // as YAML breaks lines
			d.lines = append(d.lines, i+1)
		}
	}
	if at := strings.IndexFunc(d.text, func(r rune) bool { return r == utf8.RuneError || r < ' ' && !strings.ContainsRune("\t\r\n", r) }); at >= 0 {
		d.fault(d.placeOf(at), "not UTF-8 text")
		return d, value{}, false
	}
	if at := tooDeep(d.text); at >= 0 {
		d.fault(d.placeOf(at), "nested too deep")
		return d, value{}, false
	}
	tree, err := parseYAML(d.text)
	if err != nil {
		var ye yaml.Error // its Error method would print the source around the place as well
		if !errors.As(err, &ye) {
			d.fault(place{1, 1}, "not valid YAML: %v", err)
		} else if t := ye.GetToken(); t == nil || t.Position == nil {
			d.fault(place{1, 1}, "not valid YAML: %s", ye.GetMessage())
		} else {
			d.fault(place{t.Position.Line, max(t.Position.Column, 1)}, "not valid YAML: %s", ye.GetMessage())
		}
		return d, value{}, false
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) == 0 {
		d.fault(place{1, 1}, "the file is empty")
		return d, value{}, false
	}
	if len(bodies) > 1 {
		d.fault(position(bodies[1]), "one document a file: put the second into a file of its own")
	}
	return d, d.value("", bodies[0]), true
}

// parseYAML turns a panic of the YAML library, which fuzzing has found in the past, into a fault of the file.
func parseYAML(text string) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

// tooDeep finds where brackets or block markers nest deeper than any file of ours does (four levels), before the
// recursive parser meets them. It does not know about quotes, so its limit is generous; -1 when all is well.
func tooDeep(text string) int {
	const limit = 64
	depth, markers := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		case '-', '?', ':':
			markers++
		case ' ', '\t':
			continue
		default:
			markers = 0
			continue
		}
		if depth > limit || markers > limit {
			return i
		}
	}
	return -1
}

func (d *document) fault(at place, format string, args ...any) {
	*d.faults = append(*d.faults, Fault{File: d.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)})
}

// faultAt reports what is wrong with the value at path.
func (d *document) faultAt(path, format string, args ...any) { d.fault(d.at(path), format, args...) }

// at is where the value at path stands, or the nearest thing above it that has a place.
func (d *document) at(path string) place {
	for {
		if p, ok := d.places[path]; ok {
			return p
		}
		if path == "" {
			return place{1, 1}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

// within is the place of byte offset at of the text value at path. Quotes, escapes and folded lines make the text as
// written longer than the value, so the two are walked along together.
func (d *document) within(path, text string, at int) place {
	start := d.at(path)
	from := d.offset(start)
	if from < len(d.text) && (d.text[from] == '|' || d.text[from] == '>') {
		if end := strings.IndexByte(d.text[from:], '\n'); end >= 0 {
			from += end + 1
		}
	}
	pos := from
	for i, r := range text {
		for pos < len(d.text) {
			have, size := utf8.DecodeRuneInString(d.text[pos:])
			if have == r || (r == ' ' || r == '\n') && (have == ' ' || have == '\n') {
				break
			}
			pos += size
		}
		if pos >= len(d.text) {
			return start
		}
		if i >= at {
			return d.placeOf(pos)
		}
		if r == ' ' || r == '\n' {
			folded := d.text[pos] == '\n' && r == ' '
			pos++
			for folded && pos < len(d.text) && (d.text[pos] == ' ' || d.text[pos] == '\n') {
				pos++
			}
			continue
		}
		pos += utf8.RuneLen(r)
	}
	return d.placeOf(min(pos, len(d.text)))
}

func (d *document) offset(p place) int {
	if p.line < 1 || p.line > len(d.lines) {
		return len(d.text)
	}
	pos := d.lines[p.line-1]
	for range p.column - 1 {
		if pos >= len(d.text) {
			break
		}
		_, size := utf8.DecodeRuneInString(d.text[pos:])
		pos += size
	}
	return pos
}

func (d *document) placeOf(offset int) place {
	line, found := slices.BinarySearch(d.lines, offset)
	if !found {
		line--
	}
	return place{line + 1, utf8.RuneCountInString(d.text[d.lines[line]:offset]) + 1}
}

// value records where node stands and gives it its path.
func (d *document) value(path string, node ast.Node) value {
	d.places[path] = position(node)
	return value{d, path, node}
}

// position is where a person would put the cursor on node.
func position(node ast.Node) place {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return position(n.Values[0])
		}
	case *ast.MappingValueNode:
		return position(n.Key)
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
	}
	return place{1, 1}
}

func (v value) fault(format string, args ...any) { v.doc.faultAt(v.path, format, args...) }

// describe names what stands there instead of what was wanted.
func (v value) describe() string {
	switch n := v.node.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.AliasNode:
		return "an alias: a value that begins with * must be put in quotes"
	case *ast.AnchorNode:
		return "an anchor: a value that begins with & must be put in quotes"
	case *ast.TagNode:
		return "a tag: a value that begins with ! must be put in quotes"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	default:
		return n.GetToken().Value
	}
}

// object reads a mapping with the given keys. Unknown and repeated keys are faults.
func (v value) object(what string, keys ...string) object {
	o := object{value: v, members: map[string]value{}}
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.fault("%s must be a mapping of keys to values, not %s", what, v.describe())
		return object{value: v}
	}
	for _, pair := range pairs {
		key := pair.Key.GetToken().Value
		if _, isText := pair.Key.(*ast.StringNode); !isText {
			v.doc.fault(position(pair.Key), "a key must be plain text")
			continue
		}
		path := key
		if v.path != "" {
			path = v.path + "." + key
		}
		if keys != nil && !slices.Contains(keys, key) {
			v.doc.fault(position(pair.Key), "%s", unknownKey(key, what, keys, v.path == ""))
			continue
		}
		if _, repeated := o.members[key]; repeated {
			v.doc.fault(position(pair.Key), "key %q stands here twice", key)
			continue
		}
		o.members[key] = v.doc.value(path, pair.Value)
	}
	return o
}

// unknownKey explains a key that this mapping does not have; at the top of a file the reader may have the wrong file open.
func unknownKey(key, what string, keys []string, top bool) string {
	message := fmt.Sprintf("%s has no key %q%s", what, key, didYouMean(key, keys))
	if !top || strings.Contains(message, "did you mean") {
		return message
	}
	for _, k := range kinds {
		if slices.Contains(k.keys, key) {
			return fmt.Sprintf("%s; it belongs in %s", message, k.home)
		}
	}
	return message + "; keys are " + strings.Join(keys, ", ")
}

// required reports which of the keys are missing or empty.
func (o object) required(what string, keys ...string) {
	for _, key := range keys {
		if m, ok := o.members[key]; !ok {
			o.fault("%s needs the key %q", what, key)
		} else if _, null := m.node.(*ast.NullNode); null {
			m.fault("%q needs a value", key)
		}
	}
}

// get returns the member and whether it is there with a value.
func (o object) get(key string) (value, bool) {
	m, ok := o.members[key]
	if !ok {
		return value{}, false
	}
	_, null := m.node.(*ast.NullNode)
	return m, !null
}

// text reads a string, or "" when the key is not there.
func (o object) text(key string) string {
	m, ok := o.get(key)
	if !ok {
		return ""
	}
	return m.text()
}

// oneOf reads one of some words, or "" when the key is not there.
func (o object) oneOf(key string, words ...string) string {
	word := o.text(key)
	if word != "" && !slices.Contains(words, word) {
		o.members[key].fault("%s is %s, not %q%s", key, strings.Join(words, " or "), word, didYouMean(word, words))
	}
	return word
}

func (v value) text() string {
	var s string
	switch n := v.node.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		v.fault("%s must be text: write \"%s\" in quotes", v.name(), v.describe())
		return ""
	default:
		v.fault("%s must be text, not %s", v.name(), v.describe())
		return ""
	}
	if strings.TrimSpace(s) == "" {
		v.fault("%s must not be empty", v.name())
	}
	return s
}

// name is the last part of the path, for messages.
func (v value) name() string {
	name := v.path
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name = name[dot+1:]
	}
	if bracket := strings.IndexByte(name, '['); bracket >= 0 {
		return "each of " + name[:bracket]
	}
	return name
}

// list reads a sequence, or nothing when the key is not there.
func (o object) list(key string) []value {
	m, ok := o.get(key)
	if !ok {
		return nil
	}
	seq, ok := m.node.(*ast.SequenceNode)
	if !ok {
		m.fault("%s must be a list, not %s", key, m.describe())
		return nil
	}
	values := make([]value, len(seq.Values))
	for i, n := range seq.Values {
		values[i] = m.doc.value(fmt.Sprintf("%s[%d]", m.path, i), n)
	}
	return values
}

// texts reads a list of strings.
func (o object) texts(key string) []string {
	var out []string
	for _, v := range o.list(key) {
		out = append(out, v.text())
	}
	return out
}

// boolean reads true or false, or fallback when the key is not there.
func (o object) boolean(key string, fallback bool) bool {
	m, ok := o.get(key)
	if !ok {
		return fallback
	}
	b, ok := m.node.(*ast.BoolNode)
	if !ok {
		m.fault("%s must be true or false, not %s", key, m.describe())
		return fallback
	}
	return b.Value
}

// count reads a whole number from 0, or fallback when the key is not there.
func (o object) count(key string, fallback, most int) int {
	m, ok := o.get(key)
	if !ok {
		return fallback
	}
	if n, ok := m.node.(*ast.IntegerNode); ok {
		if i, err := strconv.Atoi(n.GetToken().Value); err == nil && i >= 0 && i <= most {
			return i
		}
	}
	m.fault("%s must be a whole number from 0 to %d", key, most)
	return fallback
}

// duration reads a length of time such as "90m", "72h" or "30d", or fallback when the key is not there.
func (o object) duration(key string, fallback time.Duration) time.Duration {
	m, ok := o.get(key)
	if !ok {
		return fallback
	}
	text, isText := m.node.(*ast.StringNode)
	if !isText {
		m.fault("%s must be a length of time such as 72h or 30d, not %s", key, m.describe())
		return fallback
	}
	d, err := ParseDuration(text.Value)
	if err != nil {
		m.fault("%s: %v", key, err)
		return fallback
	}
	return d
}

// hours is a duration in whole hours or days, as storage counts: less than an hour would be none, which is for ever.
func (o object) hours(key string, fallback time.Duration) time.Duration {
	m, _ := o.get(key)
	text, isText := m.node.(*ast.StringNode)
	if !isText {
		return o.duration(key, fallback)
	}
	if unit := strings.TrimLeft(text.Value, "0123456789"); unit != "h" && unit != "d" {
		m.fault("%s: %q is not whole hours or days such as 72h or 30d", key, text.Value)
		return fallback
	}
	return o.duration(key, fallback)
}

// maxDuration is a hundred years: longer is a slip of the pen, and nearly what a time.Duration can hold thrice.
const maxDuration = 100 * 365 * 24 * time.Hour

// ParseDuration reads a positive length of time: what time.ParseDuration reads, and whole days as in "30d".
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a length of time such as 90m, 72h or 30d", s)
	var d time.Duration
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, bad
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			return 0, bad
		}
	}
	if d <= 0 || d > maxDuration {
		return 0, fmt.Errorf("%q must be more than nothing and at most 100 years", s)
	}
	return d, nil
}
