package aggregate

import (
	"context"
	"slices"

	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// edits routes anew those of the events that were edited, stores what they have become, and gives the version of each.
// What an edit needs, the post as first written and what leads back to its author, may come later: whoever stores that
// comes here again.
func (r *resolver) edits(ctx context.Context, heads map[social.Key]social.Version) (map[social.Key]social.Version, error) {
	var events []social.Key
	for event, head := range heads {
		if head.Revision() > 0 && head != social.Deleted() {
			events = append(events, event)
		}
	}
	if len(events) == 0 {
		return nil, nil
	}
	edits, err := r.store.NewestEdits(ctx, events)
	if err != nil {
		return nil, err
	}
	bases, err := r.bases(ctx, events)
	if err != nil {
		return nil, err
	}
	to, _, err := r.store.Edges(ctx, events)
	if err != nil {
		return nil, err
	}
	originals, err := r.store.Originals(ctx, events)
	if err != nil {
		return nil, err
	}
	var mentions []social.Mention
	var selves []social.Reference
	versions := map[social.Key]social.Version{}
	for event, edit := range edits {
		base, ok := bases[event]
		original := base.Sealed
		if len(original) == 0 {
			original = originals[event]
		}
		if !ok || len(original) == 0 || len(edit.Sealed) == 0 {
			continue
		}
		answer, err := r.bus.Request(ctx, topology.RouteSubject, wire.EncodeEdit(&wire.Edit{
			RulesVersion: edit.RulesVersion, Revision: edit.Time, Line: edit.Sealed, Original: original, Base: base.Mention}))
		if err != nil {
			return nil, err
		}
		edited, err := wire.DecodeEdited(answer)
		if err != nil {
			return nil, err
		}
		versions[event] = edited.Self.Version
		mentions = append(mentions, edited.Mentions...)
		if slices.ContainsFunc(to, func(edge warehouse.Edge) bool { return edge.Event == event }) {
			selves = append(selves, social.Reference{Mention: edited.Self, Sealed: base.Sealed, Kept: true})
		}
	}
	if err := r.store.InsertSelves(ctx, selves, warehouse.Edited); err != nil {
		return nil, err
	}
	return versions, r.put(ctx, mentions)
}

// bases finds the events as they were first written, and keeps them so: their mentions are about to be taken back.
func (r *resolver) bases(ctx context.Context, events []social.Key) (map[social.Key]warehouse.Self, error) {
	selves, err := r.store.Selves(ctx, events)
	if err != nil {
		return nil, err
	}
	bases := map[social.Key]warehouse.Self{}
	for _, self := range selves {
		event := self.Mention.EventKey
		if was := bases[event]; self.Part != warehouse.Edited && was.Mention.Version.Less(self.Mention.Version) {
			if len(self.Sealed) == 0 {
				self.Sealed = was.Sealed
			}
			bases[event] = self
		}
	}
	first, err := r.store.FirstWritten(ctx, events)
	if err != nil {
		return nil, err
	}
	var before []social.Reference
	for _, reference := range first {
		event := reference.Mention.EventKey
		was, ok := bases[event]
		if ok && !was.Mention.Version.Less(reference.Mention.Version) {
			continue
		}
		before = append(before, reference)
		was.Mention = reference.Mention
		bases[event] = was
	}
	return bases, r.store.InsertSelves(ctx, before, warehouse.Before)
}
