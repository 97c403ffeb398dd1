// Package pseudonym replaces native ids by keyed hashes and seals what leads back to a person. Whoever has neither
// the secret nor the sealed table of originals cannot find the person behind a key. It is pure.
package pseudonym

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"polyphony/pkg/social"
)

// MinSecret is the shortest secret in bytes: 128 bits, as strong as the keys are long.
const MinSecret = 16

// Keyer makes keys and seals from one secret. It is not safe for concurrent use; Clone makes another.
type Keyer struct {
	secret []byte
	mac    hash.Hash
	nonces hash.Hash
	aead   cipher.AEAD
	tags   cipher.Block
	tag    [aes.BlockSize]byte // reused
	in     []byte              // reused
	buf    []byte              // reused
}

// New makes a Keyer. Keys change with the secret: a company keeps one for as long as it keeps its data.
func New(secret []byte) (*Keyer, error) {
	secret = bytes.TrimSpace(secret)
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("the secret has %d bytes, at least %d are needed", len(secret), MinSecret)
	}
	block, err := aes.NewCipher(derive(secret, "polyphony seal"))
	if err != nil {
		return nil, fmt.Errorf("preparing the seal: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("preparing the seal: %w", err)
	}
	tags, err := aes.NewCipher(derive(secret, "polyphony tag"))
	if err != nil {
		return nil, fmt.Errorf("preparing tags: %w", err)
	}
	return &Keyer{
		secret: secret, aead: aead, tags: tags, mac: hmac.New(sha256.New, secret),
		nonces: hmac.New(sha256.New, derive(secret, "polyphony seal nonce")),
	}, nil
}

// Clone makes a Keyer for another goroutine.
func (k *Keyer) Clone() *Keyer {
	other, err := New(k.secret)
	if err != nil {
		panic("BUG: a secret that was good once: " + err.Error())
	}
	return other
}

func derive(secret []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// Key is the first 128 bits of HMAC-SHA256(secret, source|id), and zero for an empty id. A source contains no "|", so
// no two pairs share a key by their spelling.
func (k *Keyer) Key(source, id string) social.Key {
	var key social.Key
	if id == "" {
		return key
	}
	k.mac.Reset()
	k.in = append(append(append(k.in[:0], source...), '|'), id...)
	k.mac.Write(k.in)
	k.buf = k.mac.Sum(k.buf[:0])
	copy(key[:], k.buf)
	return key
}

// Tag replaces a hash of content by one that nobody without the secret can compute: what is masked in a text must not be
// found by trying what it may have been. It costs one block of AES-256, a tenth of a Key.
func (k *Keyer) Tag(hash uint64) uint64 {
	clear(k.tag[:])
	binary.LittleEndian.PutUint64(k.tag[:], hash)
	k.tags.Encrypt(k.tag[:], k.tag[:])
	return binary.LittleEndian.Uint64(k.tag[:])
}

// Seal appends plain to dst, encrypted for whoever has the secret (AES-256-GCM). The nonce is made from the content,
// so that the same original is sealed to the same bytes however often it comes.
func (k *Keyer) Seal(dst, plain []byte) []byte {
	k.nonces.Reset()
	k.nonces.Write(plain)
	k.buf = k.nonces.Sum(k.buf[:0])
	nonce := k.buf[:k.aead.NonceSize()]
	return k.aead.Seal(append(dst, nonce...), nonce, plain, nil)
}

// ErrSeal says that bytes were sealed with another secret, or changed since.
var ErrSeal = errors.New("sealed with another secret, or damaged")

// Open reads what Seal wrote.
func (k *Keyer) Open(sealed []byte) ([]byte, error) {
	size := k.aead.NonceSize()
	if len(sealed) < size {
		return nil, ErrSeal
	}
	plain, err := k.aead.Open(nil, sealed[:size], sealed[size:], nil)
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}
