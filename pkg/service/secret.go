package service

import (
	"crypto/rand"
	"errors"
	"fmt"
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
	secret, err := os.ReadFile(path)
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
	password, err := os.ReadFile(path)
	if err != nil {
		return "", &UsageError{fmt.Errorf("%s: %w", setting, err)}
	}
	return strings.TrimSpace(string(password)), nil
}

// KeepSecret reads a secret that this machine made for itself, or makes it.
func KeepSecret(path string) ([]byte, error) {
	secret, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making room for the secret: %w", err)
	}
	secret = []byte(rand.Text() + rand.Text())
	partial := path + ".new" // a kill in between leaves no half secret
	if err := os.WriteFile(partial, secret, 0o600); err != nil {
		return nil, fmt.Errorf("writing the secret: %w", err)
	}
	if err := os.Rename(partial, path); err != nil {
		return nil, fmt.Errorf("writing the secret: %w", err)
	}
	return secret, nil
}
