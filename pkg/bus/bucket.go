package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"polyphony/pkg/seam"
)

// ErrNoKey says that a bucket has no such key (yet).
var ErrNoKey = errors.New("no such key")

// Get reads a key of a bucket.
func (b *Bus) Get(ctx context.Context, bucket, key string) ([]byte, error) {
	value, _, err := b.Written(ctx, bucket, key)
	return value, err
}

// Written reads a key of a bucket, and when it was written.
func (b *Bus) Written(ctx context.Context, bucket, key string) ([]byte, time.Time, error) {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return nil, time.Time{}, err
	}
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, time.Time{}, fmt.Errorf("%w: %s in %s", ErrNoKey, key, bucket)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("reading %s of %s: %w", key, bucket, err)
	}
	return entry.Value(), entry.Created(), nil
}

// Keys lists the keys of a bucket that begin so.
func (b *Bus) Keys(ctx context.Context, bucket, prefix string) (keys []string, err error) {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	list, err := kv.ListKeysFiltered(ctx, prefix+">")
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", bucket, err)
	}
	for key := range list.Keys() {
		keys = append(keys, key)
	}
	return keys, ctx.Err()
}

// Put writes a key of a bucket.
func (b *Bus) Put(ctx context.Context, bucket, key string, value []byte) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	seam.Before(seam.Put, bucket)
	if _, err := kv.Put(ctx, key, value); err != nil {
		return fmt.Errorf("writing %s of %s: %w", key, bucket, err)
	}
	seam.After(seam.Put, bucket)
	return nil
}

// PutOnce writes a key that never changes; it is there already when somebody else wrote it first.
func (b *Bus) PutOnce(ctx context.Context, bucket, key string, value []byte) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	seam.Before(seam.Put, bucket)
	if _, err := kv.Create(ctx, key, value); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("writing %s of %s: %w", key, bucket, err)
	}
	seam.After(seam.Put, bucket)
	return nil
}

// Delete removes a key of a bucket; it need not be there.
func (b *Bus) Delete(ctx context.Context, bucket, key string) error {
	kv, err := b.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	seam.Before(seam.Put, bucket)
	if err := kv.Purge(ctx, key); err != nil {
		return fmt.Errorf("removing %s of %s: %w", key, bucket, err)
	}
	seam.After(seam.Put, bucket)
	return nil
}

// bucket opens a bucket, and makes it anew where it is gone.
func (b *Bus) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	kv, err := b.js.KeyValue(ctx, name)
	if absent(err) {
		b.restore(ctx, fmt.Errorf("bucket %s: %w", name, err))
		kv, err = b.js.KeyValue(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening bucket %s: %w", name, err)
	}
	return kv, nil
}
