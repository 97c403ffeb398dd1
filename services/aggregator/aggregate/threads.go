package aggregate

import (
	"context"
	"slices"
	"time"

	"polyphony/pkg/bus"
	"polyphony/pkg/seam"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// threads stores what is said about events, then resolves what that changes: first for the events that statements are
// about, then for those that refer to others.
func (f *flush) threads(ctx context.Context, batch []bus.Delivery) error {
	start := time.Now()
	f.again = slices.ContainsFunc(batch, func(d bus.Delivery) bool { return d.Again })
	h, err := f.hear(ctx, batch)
	if err != nil {
		return err
	}
	var events []social.Key
	err = f.insist(ctx, "storing statements and references", func(ctx context.Context) (err error) {
		events, err = f.remember(ctx, h)
		return err
	})
	if err != nil {
		return err
	}
	if err := f.resolve(ctx, news{events: events, again: f.again}); err != nil {
		return err
	}
	if err := f.engaged(ctx, h.told); err != nil {
		return err
	}
	if len(h.references) > len(h.waiting) { // of the others their mentions say what they are: those must be there
		if err := f.caughtUp(ctx); err != nil {
			return err
		}
	}
	referring, err := f.concerned(ctx, h.references)
	if err != nil {
		return err
	}
	if err := f.resolve(ctx, news{referring: referring, again: f.again}); err != nil {
		return err
	}
	f.metrics.flushed("threads", h.lines, time.Since(start))
	return nil
}

// hearsay is what a batch says about events.
type hearsay struct {
	said       []social.Statement // edits and deletions
	told       []warehouse.Observation
	references []social.Reference
	waiting    []social.Reference // those of them that are no mentions by themselves
	lines      int
}

// hear reads a batch.
func (f *flush) hear(ctx context.Context, batch []bus.Delivery) (*hearsay, error) {
	h := &hearsay{}
	var statements []social.Statement
	for i := range batch {
		d := &batch[i]
		f.hand.Work()
		lines, err := decodeFrame(d)
		seam.Taste(lines)
		switch {
		case err != nil:
		case d.Subject == topology.ReferencesSubject:
			h.references, err = wire.DecodeReferences(h.references, lines)
		default:
			statements, err = wire.DecodeStatements(statements, lines)
		}
		f.hand.Rest()
		if err != nil {
			if err := f.foreign(ctx, d); err != nil {
				return nil, err
			}
		}
	}
	h.lines = len(statements) + len(h.references)
	for i := range statements {
		if s := &statements[i]; s.Kind == social.Counted {
			h.told = append(h.told, warehouse.Observation{EventKey: s.ObjectKey, Counters: s.Counters})
		} else {
			h.said = append(h.said, *s)
		}
	}
	for i := range h.references {
		if m := &h.references[i].Mention; !h.references[i].Kept {
			h.waiting = append(h.waiting, h.references[i])
			if m.Counters != nil {
				h.told = append(h.told, warehouse.Observation{EventKey: m.EventKey, Counters: *m.Counters})
			}
		}
	}
	return h, nil
}

// remember stores what was heard and gives the events that edits and deletions are about.
func (f *flush) remember(ctx context.Context, h *hearsay) (events []social.Key, err error) {
	if err := f.store.InsertStatements(ctx, h.said); err != nil {
		return nil, err
	}
	if err := f.store.InsertCounters(ctx, h.told); err != nil {
		return nil, err
	}
	if err := f.store.InsertEdges(ctx, h.references); err != nil {
		return nil, err
	}
	if err := f.store.InsertSelves(ctx, h.waiting, warehouse.Waiting); err != nil {
		return nil, err
	}
	return f.say(ctx, h.said)
}

// say has statements take effect: whoever writes a mention from now on sees that it is deleted, or looks for edits. It gives the
// events that they are about.
func (f *flush) say(ctx context.Context, statements []social.Statement) (events []social.Key, err error) {
	heads, authors := map[social.Key]social.Version{}, map[social.Key]time.Time{}
	for i := range statements {
		s := &statements[i]
		switch {
		case s.Kind == social.Delete && s.ObjectKey == (social.Key{}):
			if s.Time.After(authors[s.ObjectAuthor]) {
				authors[s.ObjectAuthor] = s.Time
			}
			continue
		case s.Kind == social.Delete:
			heads[s.ObjectKey] = social.Deleted()
		case s.Kind == social.Edit && heads[s.ObjectKey] != social.Deleted():
			heads[s.ObjectKey] = social.Mark()
		}
		events = append(events, s.ObjectKey)
	}
	if err := f.store.PutHeads(ctx, heads); err != nil {
		return nil, err
	}
	if len(authors) == 0 {
		return events, nil
	}
	if err := f.store.PutAuthorHeads(ctx, authors); err != nil {
		return nil, err
	}
	written, err := f.store.WrittenBy(ctx, authors)
	if err != nil {
		return nil, err
	}
	clear(heads)
	for _, event := range written {
		heads[event] = social.Deleted()
	}
	return append(events, written...), f.store.PutHeads(ctx, heads)
}

// engaged has totals take effect where their posts are mentions already.
func (f *flush) engaged(ctx context.Context, told []warehouse.Observation) error {
	posts := make([]social.Key, len(told))
	for i := range told {
		posts[i] = told[i].EventKey
	}
	again := f.again
	return f.insist(ctx, "resolving engagement", func(ctx context.Context) error {
		r := &resolver{Aggregator: f.Aggregator, trying: f.trying, again: again}
		again = true
		for part := range slices.Chunk(social.Distinct(posts), maxResolved) {
			if err := r.engage(ctx, part, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// concerned gives the events that their references may change something for: those that name an event which ever was a
// mention, and of those that are none by themselves also which were one, or of which more is known. Most of what a
// network tells refers to what concerns nobody; once that does, whoever stores it finds what refers to it.
func (f *flush) concerned(ctx context.Context, references []social.Reference) (events []social.Key, err error) {
	var named, own []social.Key
	for i := range references {
		named = append(named, references[i].Targets...)
		if !references[i].Kept {
			own = append(own, references[i].Mention.EventKey)
		}
	}
	err = f.insist(ctx, "looking for what references are about", func(ctx context.Context) error {
		located, err := f.store.Located(ctx, social.Distinct(append(named, own...)))
		if err != nil {
			return err
		}
		heads, err := f.store.Heads(ctx, own)
		if err != nil {
			return err
		}
		events = events[:0]
		for i := range references {
			r := &references[i]
			event := r.Mention.EventKey
			_, known := heads[event]
			if known || !r.Kept && located[event] || slices.ContainsFunc(r.Targets, func(target social.Key) bool { return located[target] }) {
				events = append(events, event)
			}
		}
		return nil
	})
	return social.Distinct(events), err
}
