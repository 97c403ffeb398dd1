package enrich

import (
	"context"
	"errors"
	"fmt"
	"time"

	"polyphony/pkg/seam"
	"polyphony/pkg/social"
	"polyphony/pkg/topology"
	"polyphony/pkg/wire"
)

// answer tells aggregators where edited events belong, until ctx ends: they know the events, enrichers the rules and
// the secret.
func (w *worker) answer(ctx context.Context) error {
	return w.bus.Answer(ctx, topology.RouteSubject, func(question []byte) []byte {
		edited, err := w.tryRoute(ctx, question)
		answer := wire.EncodeEdited(&edited, err)
		if limit := w.bus.MaxPayload(); len(answer) > limit {
			answer = wire.EncodeEdited(nil, fmt.Errorf("%w: %d bytes where NATS takes %d", wire.ErrUnroutable, len(answer), limit))
		}
		return answer
	})
}

// routeWait bounds how long one question keeps others waiting, for rules that cannot be read. Whoever asked asks again.
const routeWait = 3 * time.Second

// route gives what an edit makes of an event. What can never be read is wire.ErrUnroutable.
func (w *worker) route(ctx context.Context, question []byte) (edited wire.Edited, err error) {
	edit, err := wire.DecodeEdit(question)
	if err != nil {
		return edited, fmt.Errorf("%w: the question is nothing that this version of Polyphony writes", wire.ErrUnroutable)
	}
	m, err := w.matcher(ctx, edit.RulesVersion)
	if err != nil {
		return edited, err
	}
	w.hand.Work()
	defer w.hand.Rest()
	e, err := w.applied(&edit, m.keepText)
	if err != nil {
		return edited, fmt.Errorf("%w: %w", wire.ErrUnroutable, err)
	}
	return w.enrichment.edited(e, m, &edit), nil
}

// applied is the event as an edit leaves it. What is wrong is told without any of it: it ends in a reject's detail.
func (w *worker) applied(edit *wire.Edit, keepText time.Duration) (*social.Event, error) {
	line, err := w.keyer.Open(edit.Line)
	if err != nil {
		return nil, fmt.Errorf("opening an edit: %w", err)
	}
	identity, err := w.keyer.Open(edit.Original)
	if err != nil {
		return nil, fmt.Errorf("opening an original: %w", err)
	}
	seam.Taste(line)
	change, err := w.decoder.Decode(line)
	if err != nil {
		return nil, fmt.Errorf("decoding an edit: %w", err)
	}
	e := eventOf(&edit.Base)
	if err := wire.DecodeIdentity(e, identity); err != nil {
		return nil, errors.New("the original is nothing that this version of Polyphony writes")
	}
	if change.Text == "" && keepText > 0 && edit.RecordedTime.Sub(e.Time) > keepText {
		return nil, errors.New("it leaves the text as it was, and that is no longer kept")
	}
	apply(e, change)
	return e, nil
}

// eventOf is the event that a mention was made of, as far as the mention tells.
func eventOf(m *social.Mention) *social.Event {
	e := &social.Event{Source: m.Source, Kind: m.Kind, Time: m.Time, Text: m.Text, Lang: m.Lang,
		Author: social.Author{Followers: m.Followers, Bot: m.Bot}}
	switch m.CountryMethod {
	case social.CountryByPlace:
		e.PlaceCountry = m.Country
	case social.CountryByAuthor:
		e.Author.Country = m.Country
	}
	return e
}

// apply gives e what an edit says; what it leaves out stays. What a text links to goes with it. Whoever was known to be named
// stays masked: the edit may not say it again.
func apply(e, edit *social.Event) {
	if edit.Text != "" {
		e.Text, e.Links = edit.Text, edit.Links
	}
	e.Mentions = append(append(e.Mentions, edit.Mentions...), social.Person{ID: edit.InReplyTo.AuthorID, Handle: e.Author.Handle})
	if len(edit.Links) > 0 {
		e.Links = edit.Links
	}
	if edit.Title != "" {
		e.Title = edit.Title
	}
	if edit.Lang != "" {
		e.Lang = edit.Lang
	}
	if edit.URL != "" {
		e.URL = edit.URL
	}
	if len(edit.Hashtags) > 0 {
		e.Hashtags = edit.Hashtags
	}
	if edit.PlaceCountry != "" {
		e.PlaceCountry = edit.PlaceCountry
	}
	if edit.Author.Country != "" {
		e.Author.Country = edit.Author.Country
	}
	if edit.Author.Handle != "" {
		e.Author.Handle = edit.Author.Handle
	}
	if edit.Author.Followers > 0 {
		e.Author.Followers = edit.Author.Followers
	}
	if edit.Account != "" {
		e.Account = edit.Account
	}
}

// edited makes mentions of an event as it stands after an edit. What it refers to stays what it was.
func (en *Enrichment) edited(e *social.Event, m *matcher, edit *wire.Edit) wire.Edited {
	matches := m.Match(e)
	country, method := m.Country()
	self := en.mention(e, country, m.version, edit.Base.RecordedTime)
	self.EventKey, self.AuthorKey = edit.Base.EventKey, edit.Base.AuthorKey
	self.ParentKey, self.RootKey, self.ParentAuthorKey = edit.Base.ParentKey, edit.Base.RootKey, edit.Base.ParentAuthorKey
	self.Version = edit.Version
	self.Country, self.CountryMethod = country, method
	edited := wire.Edited{Self: self}
	edited.Self.Via = social.ViaThread
	for i := range matches {
		match := &matches[i]
		if match.Via == social.ViaAccount && edited.Self.Account == "" {
			edited.Self.Account, edited.Self.Owned, edited.Self.ByCompany = match.Account, match.Owned, match.ByCompany
		}
		mention := self
		place(&mention, match)
		mention.Products, mention.Competitors, mention.Topics = clones(mention.Products), clones(mention.Competitors), clones(mention.Topics)
		edited.Mentions = append(edited.Mentions, mention)
	}
	return edited
}

func clones(names []string) []string { return append([]string{}, names...) }
