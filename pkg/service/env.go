package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// prefix marks the variables that are ours.
const prefix = "POLYPHONY_"

// Environ is the process's environment, for programs that do not use Main.
func Environ() []string { return os.Environ() }

// Load fills the fields of the struct that settings points to, and of structs in it, from environ: by the tags env
// (the name), default and help. Fields may be string, bool, int, int64, time.Duration and slog.Level; a string may have a
// form, see checkForm. An unknown POLYPHONY_ variable or a value that does not fit is an error that names it, never its
// value.
func Load(environ []string, settings any) error {
	given := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix) {
			given[name] = value
		}
	}
	var faults []error
	known := map[string]bool{}
	eachSetting(reflect.ValueOf(settings).Elem(), func(field reflect.StructField, value reflect.Value) {
		name := field.Tag.Get("env")
		known[name] = true
		text, ok := given[name]
		if !ok {
			text = field.Tag.Get("default")
		}
		if err := errors.Join(set(value, text), checkForm(field.Tag.Get("form"), text)); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	})
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			faults = append(faults, fmt.Errorf("%s: no such setting%s; see --help", name, nearest(name, known)))
		}
	}
	return errors.Join(faults...)
}

func eachSetting(v reflect.Value, do func(reflect.StructField, reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Type.Kind() == reflect.Struct {
			eachSetting(v.Field(i), do)
		} else {
			do(field, v.Field(i))
		}
	}
}

func set(v reflect.Value, text string) error {
	if text == "" {
		return nil
	}
	switch v.Interface().(type) {
	case string:
		v.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("want true or false")
		}
		v.SetBool(b)
	case slog.Level:
		var level slog.Level
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return errors.New("want debug, info, warn or error")
		}
		v.SetInt(int64(level))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return errors.New("want a duration like 500ms, 30s or 72h")
		}
		v.SetInt(int64(d))
	case int, int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return errors.New("want a whole number, not negative")
		}
		v.SetInt(n)
	default:
		panic("BUG: a setting of type " + v.Type().String())
	}
	return nil
}

// checkForm holds text against a form: "addr" is HOST:PORT, the host may be empty; "nats" is one or several NATS URLs
// with commas between, a bare HOST:PORT among them; "storage" is a number of bytes, of which fewer than leastStorage cannot be
// worked with; "" is any text. No text has every form.
func checkForm(form, text string) error {
	if text == "" {
		return nil
	}
	switch form {
	case "addr":
		if !isAddr(text) {
			return errors.New("want HOST:PORT")
		}
	case "storage":
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n < leastStorage {
			return fmt.Errorf("want bytes, at least %d", leastStorage)
		}
	case "nats":
		for one := range strings.SplitSeq(text, ",") {
			if one = strings.TrimSpace(one); !strings.Contains(one, "://") {
				one = "nats://" + one
			}
			if u, err := url.Parse(one); err != nil || u.Hostname() == "" {
				return errors.New("want nats://HOST:PORT")
			}
		}
	}
	return nil
}

// leastStorage gives THREADS, which gets a twentieth of it, room for two of the largest messages.
const leastStorage = 40 << 20

func isAddr(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// nearest suggests the known name that differs least, when it differs little.
func nearest(name string, known map[string]bool) string {
	best, least := "", 4
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// distance is the Levenshtein distance of two ASCII strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// describe lists the settings with their defaults.
func describe(w io.Writer, settings any) {
	eachSetting(reflect.ValueOf(settings).Elem(), func(field reflect.StructField, _ reflect.Value) {
		fmt.Fprintf(w, "  %-34s %s", field.Tag.Get("env"), field.Tag.Get("help"))
		if d := field.Tag.Get("default"); d != "" {
			fmt.Fprintf(w, " (default %s)", d)
		}
		fmt.Fprintln(w)
	})
}
