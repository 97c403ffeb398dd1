package service

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ReadSecret reads a secret from a file that is a setting; setting is its name for the message.
func ReadSecret(setting, path string) ([]byte, error) {
	if path == "" {
		return nil, &UsageError{fmt.Errorf("%s is not set: name a file with at least 16 random bytes, the same for all replicas", setting)}
	}
	secret, err := readShort(path)
	if err != nil {
		return nil, &UsageError{fmt.Errorf("%s: %w", setting, err)}
	}
	return secret, nil
}

// ReadPassword reads a password from a file that is a setting; no file means no password.
func ReadPassword(setting, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	password, err := readShort(path)
	if err != nil {
		return "", &UsageError{fmt.Errorf("%s: %w", setting, err)}
	}
	return strings.TrimSpace(string(password)), nil
}

// mostSecret is more than any secret has, and less than a file that is named by mistake may.
const mostSecret = 64 << 10

func readShort(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	secret, err := io.ReadAll(io.LimitReader(file, mostSecret+1))
	if err == nil && len(secret) > mostSecret {
		err = fmt.Errorf("%s is no secret: it has more than %d bytes", path, mostSecret)
	}
	return secret, err
}

// KeepSecret reads a secret that this machine made for itself, or makes it. Of several processes that make it at once
// one wins, and all have the winner's.
func KeepSecret(path string) ([]byte, error) {
	secret, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := makeSecret(path); err != nil {
		return nil, fmt.Errorf("making the secret: %w", err)
	}
	return os.ReadFile(path)
}

// makeSecret writes a new secret to disk under a name of its own and gives it its path unless somebody was faster.
func makeSecret(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(rand.Text() + rand.Text())
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
