package pseudonym

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"polyphony/pkg/social"
)

func keyer(t testing.TB, secret string) *Keyer {
	t.Helper()
	k, err := New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A key is what the contract says: HMAC-SHA256(secret, source|id), its first 128 bits.
func TestKey(t *testing.T) {
	k := keyer(t, "0123456789abcdef\n")
	mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
	mac.Write([]byte("bluesky|did:plc:abc"))
	for range 2 {
		if got := k.Key("bluesky", "did:plc:abc"); !bytes.Equal(got[:], mac.Sum(nil)[:16]) {
			t.Errorf("got %s", got)
		}
	}
	if got := k.Key("bluesky", ""); got != (social.Key{}) {
		t.Errorf("no id has the key %s", got)
	}
	if k.Key("a", "b") == k.Key("b", "a") || k.Key("a", "b") == keyer(t, "another secret, no. 2").Key("a", "b") {
		t.Error("keys collide")
	}
}

// What is sealed opens with the same secret only, and is the same bytes each time.
func TestSeal(t *testing.T) {
	k, other := keyer(t, "0123456789abcdef"), keyer(t, "another secret, no. 2")
	plain := []byte(`{"id":"native"}`)
	sealed := k.Seal([]byte("before"), plain)[len("before"):]
	if bytes.Contains(sealed, []byte("native")) {
		t.Fatal("not sealed")
	}
	if got, err := k.Clone().Open(sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q %v", got, err)
	}
	if !bytes.Equal(sealed, k.Seal(nil, plain)) {
		t.Error("sealed twice, two results")
	}
	if _, err := other.Open(sealed); !errors.Is(err, ErrSeal) {
		t.Errorf("opened with another secret: %v", err)
	}
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1] ^= 1
	for _, bad := range [][]byte{damaged, sealed[:5], nil} {
		if _, err := k.Open(bad); !errors.Is(err, ErrSeal) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

// A tag follows from the hash and the secret, and is not the hash.
func TestTag(t *testing.T) {
	k, other := keyer(t, "0123456789abcdef"), keyer(t, "another secret, no. 2")
	seen := map[uint64]bool{}
	for hash := range uint64(1000) {
		tag := k.Tag(hash)
		if seen[tag] || tag == hash || tag == other.Tag(hash) || tag != k.Clone().Tag(hash) {
			t.Fatalf("%d has the tag %d", hash, tag)
		}
		seen[tag] = true
	}
}

func TestShortSecret(t *testing.T) {
	if _, err := New([]byte("   short   \n")); err == nil {
		t.Error("five bytes are no secret")
	}
}

// go test -run '^$' -bench . -benchmem ./pkg/pseudonym
func BenchmarkKey(b *testing.B) {
	k := keyer(b, "0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		k.Key("bluesky", "at://did:plc:abcdefghijklmnop/app.bsky.feed.post/3kabcdefghij")
	}
}

// go test -run '^$' -bench . -benchmem ./pkg/pseudonym
func BenchmarkSeal(b *testing.B) {
	k := keyer(b, "0123456789abcdef")
	plain := make([]byte, 250)
	var sealed []byte
	b.ReportAllocs()
	for b.Loop() {
		sealed = k.Seal(sealed[:0], plain)
	}
}

func BenchmarkTag(b *testing.B) {
	k := keyer(b, "0123456789abcdef")
	b.ReportAllocs()
	for i := range b.N {
		k.Tag(uint64(i))
	}
}
