package aggregate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"polyphony/pkg/bus"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/warehouse"
	"polyphony/pkg/wire"
)

// edits routes anew those of the events that were edited, stores what they have become, and gives the version of each.
// What an edit needs, the post as first written and what leads back to its author, may come later: whoever stores that
// comes here again. Until then, and where an edit can never be applied, the post stands as it was.
func (r *resolver) edits(ctx context.Context, events []social.Key) (map[social.Key]social.Version, error) {
	edits, err := r.store.NewestEdits(ctx, events)
	if err != nil || len(edits) == 0 {
		return nil, err
	}
	bases, err := r.bases(ctx, slices.Collect(maps.Keys(edits)))
	if err != nil {
		return nil, err
	}
	var mentions []social.Mention
	var selves []social.Reference
	versions := map[social.Key]social.Version{}
	for event, edit := range edits {
		base, ok := bases[event]
		if !ok || len(base.Sealed) == 0 || len(edit.Sealed) == 0 {
			continue
		}
		becomes, err := r.route(ctx, &edit, &base)
		if err != nil {
			return nil, err
		}
		if becomes == nil {
			continue
		}
		versions[event] = becomes.Self.Version
		mentions = append(mentions, becomes.Mentions...)
		selves = append(selves, social.Reference{Mention: becomes.Self, Sealed: base.Sealed, Kept: true}) // what it refers to may be heard later
	}
	if err := r.store.InsertSelves(ctx, selves, warehouse.Edited); err != nil {
		return nil, err
	}
	return versions, r.put(ctx, mentions)
}

// route asks an enricher what an edit makes of an event; nil when it can never be applied, which is put on record.
func (r *resolver) route(ctx context.Context, edit *warehouse.Edit, base *warehouse.Self) (*wire.Edited, error) {
	question := wire.EncodeEdit(&wire.Edit{
		RulesVersion: edit.RulesVersion, RecordedTime: edit.RecordedTime, Version: social.EditedVersion(edit.Time, base.Mention.Version, edit.Version),
		Line: edit.Sealed, Original: base.Sealed, Base: base.Mention})
	r.trying.Pause(ctx) // it is the enricher's now
	answer, err := r.bus.Request(ctx, topology.RouteSubject, question)
	if err := r.trying.Resume(ctx); err != nil {
		return nil, err
	}
	var becomes wire.Edited
	if err == nil {
		becomes, err = wire.DecodeEdited(answer)
	}
	switch {
	case errors.Is(err, wire.ErrUnroutable), errors.Is(err, bus.ErrTooLarge):
		r.log.Warn("an edit cannot be applied, the post stays as it was", "event", base.Mention.EventKey, "error", err)
		return nil, r.reject(ctx, fmt.Sprintf("aggregate-edit-%s-%d", base.Mention.EventKey, edit.Time.UnixMilli()), edit.RulesVersion, &wire.Reject{
			Source: base.Mention.Source, Code: "unroutable_edit", Detail: err.Error(), RecordedTime: edit.RecordedTime,
			Origin: &wire.Origin{Stream: topology.Threads.Name, Line: 1, Subject: topology.StatementsSubject,
				Header: bus.Header{topology.HeaderTrial: {topology.QuestionKey(question)}}},
			Bytes: bytes.TrimSuffix(wire.AppendStatement(nil, &edit.Statement), []byte{'\n'})})
	case err != nil:
		return nil, err
	}
	return &becomes, nil
}

// reject puts on record what can never be processed, by what rules; under one id it is stored once.
func (ag *Aggregator) reject(ctx context.Context, id, rules string, r *wire.Reject) error {
	frame := wire.AppendReject(nil, r)
	err := ag.bus.Publish(ctx, []bus.Message{{
		Subject: topology.RejectSubject("aggregate", string(r.Code)), Data: wire.EncodeOne(frame), ID: id,
		Header: bus.Header{
			topology.HeaderRules: {rules}, topology.HeaderRecorded: {strconv.FormatInt(r.RecordedTime.UnixMilli(), 10)},
			topology.HeaderSize: {strconv.Itoa(len(frame))}, topology.HeaderEvents: {"1"},
		},
	}})
	if err == nil {
		ag.metrics.rejected.Inc()
	}
	return err
}

// bases finds the events as they were first written, with what leads back to their authors, and keeps them so: their
// mentions are about to be taken back. Of several copies all comes from the same one; where what leads back to its author
// is not there yet, whoever stores that comes here again.
func (r *resolver) bases(ctx context.Context, events []social.Key) (map[social.Key]warehouse.Self, error) {
	selves, err := r.store.Selves(ctx, events)
	if err != nil {
		return nil, err
	}
	bases := map[social.Key]warehouse.Self{}
	for _, self := range selves {
		event := self.Mention.EventKey
		was, is := bases[event].Mention.Version.Words(), self.Mention.Version.Words()
		switch {
		case self.Part == warehouse.Edited, is.Less(was):
		case was.Less(is), len(self.Sealed) > 0:
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
		if bases[event].Mention.Version.Words().Less(reference.Mention.Version.Words()) {
			before = append(before, reference)
			bases[event] = warehouse.Self{Mention: reference.Mention}
		}
	}
	if err := r.store.InsertSelves(ctx, before, warehouse.Before); err != nil {
		return nil, err
	}
	originals, err := r.store.Originals(ctx, events)
	if err != nil {
		return nil, err
	}
	for event, base := range bases {
		if original := originals[event]; len(base.Sealed) == 0 && original.Version == base.Mention.Version.Words() {
			base.Sealed = original.Sealed
			bases[event] = base
		}
	}
	return bases, nil
}
