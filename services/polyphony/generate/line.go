package generate

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// text is a tongue made ready for writing: escaped for JSON, without what the plan forbids.
type text struct {
	code                                       string
	noise, greeting, planted, company, talking []phrase
	plainTitles, plantedTitles                 []phrase
}

// phrase is a text around the place where a name goes; without such a place all of it is in before.
type phrase struct{ before, after string }

// learn leaves out what the plan forbids and escapes the rest.
func (g *Generator) learn(p Plan) error {
	forbidden := g.plan.forbidden
	clean := func(list []string, named bool) []phrase {
		var phrases []phrase
		for _, s := range list {
			before, after, has := strings.Cut(s, "%p")
			if has != named || forbidden.hit(before+" "+after) || forbidden.edges(before) || forbidden.edges(after) {
				continue
			}
			phrases = append(phrases, phrase{escape(before), escape(after)})
		}
		return phrases
	}
	g.texts = make([]text, len(tongues))
	for i, t := range tongues {
		x := text{
			code: t.code, noise: clean(t.noise, false), greeting: clean(t.greeting, false), planted: clean(t.planted, true),
			company: clean(t.company, true), plainTitles: clean(t.titles, false), plantedTitles: clean(t.titles, true),
		}
		if len(x.noise) < 3 || len(x.greeting) == 0 || len(x.planted) == 0 || len(x.company) == 0 ||
			len(x.plainTitles) == 0 || len(x.plantedTitles) == 0 {
			continue // this company listens to so much of the tongue that nothing neutral is left to say
		}
		g.texts[i] = x
		g.all = append(g.all, uint8(i))
		if g.plan.hints[0][i] != ambiguous {
			g.sure = append(g.sure, uint8(i))
		}
	}
	if len(g.all) == 0 {
		return fmt.Errorf("the queries of the directory touch nearly every sentence of the generator")
	}
	for _, tag := range ambient {
		if !forbidden.hit(tag) {
			g.ambient = append(g.ambient, tag)
		}
	}
	for d := range g.plan.names {
		for i, n := range g.plan.names[d] {
			g.plan.names[d][i].text = escape(n.text)
		}
	}
	g.of = make([][]uint8, len(g.plan.territories))
	for t, name := range g.plan.territories {
		g.of[t] = g.all
		for _, territory := range p.Territories {
			if territory.Name != name {
				continue
			}
			var of []uint8
			for _, i := range g.all {
				for _, lang := range territory.Languages {
					if base, _, _ := strings.Cut(strings.ToLower(lang), "-"); base == tongues[i].code {
						of = append(of, i)
					}
				}
			}
			if len(of) > 0 {
				g.of[t] = of
			}
		}
	}
	return nil
}

// escape makes s safe between the quotes of a JSON string.
func escape(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "" // strings always encode
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
}

// flaw is what is wrong with a line that must be rejected.
type flaw uint8

const (
	sound flaw = iota
	noID
	noSource
	noKind
	noTime
	noAuthor
	strangeKind
	strangeTime
	tooLate
	inFuture
	notUTF8
	cutShort
	flaws
)

// spoil appends d with something wrong with it. Such events name products all the same: if one is let in, the truth
// no longer agrees.
func (g *Generator) spoil(dst []byte, d *draft) []byte {
	d.flaw = noID + flaw(g.random.below(uint64(flaws-noID)))
	switch {
	case d.flaw == tooLate && g.lateness == 0, d.flaw == notUTF8 && d.wordless():
		d.flaw = noAuthor
	case d.flaw == tooLate: // two days beyond, so that it stays so when the file is sent somewhat before its end
		d.at = g.clock - (g.lateness + 48*time.Hour).Milliseconds()
	case d.flaw == inFuture: // far enough to stay so when the file is sent long after it was made
		d.at = max(g.clock, g.cfg.End.UnixMilli()) + (400 * 24 * time.Hour).Milliseconds()
	}
	start := len(dst)
	dst = g.line(dst, d)
	if d.flaw == cutShort {
		dst = dst[:start+len(dst[start:])/2]
		for len(dst) > start && dst[len(dst)-1] >= 0x80 { // not within a character: one fault at a time
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, '\n')
}

// line appends d as a canonical event. The text comes last, so that it can fill up what is missing in length.
func (g *Generator) line(dst []byte, d *draft) []byte {
	start := len(dst)
	dst = append(dst, '{')
	if d.flaw != noID {
		dst = append(dst, `"id":"`...)
		dst = appendID(dst, d.net, ref{d.num, d.author, d.kind}, g.plan)
		dst = append(dst, `",`...)
	}
	if d.flaw != noSource {
		dst = appendString(dst, `"source":"`, networks[d.net].name)
	}
	switch d.flaw {
	case noKind:
	case strangeKind:
		dst = append(dst, `"kind":"shout",`...)
	default:
		dst = appendString(dst, `"kind":"`, kinds[d.kind])
	}
	switch d.flaw {
	case noTime:
	case strangeTime:
		dst = append(dst, `"time":"yesterday at noon",`...)
	default:
		dst = append(dst, `"time":"`...)
		dst = g.appendTime(dst, d.at)
		dst = append(dst, `",`...)
	}
	if d.country < 0 || g.random.below(20) > 0 { // a hint has to be given
		dst = appendString(dst, `"lang":"`, tongues[d.tongue].code)
	}
	dst = g.appendAuthor(dst, d)
	if d.account >= 0 && (!d.company || g.random.below(4) > 0) {
		dst = append(dst, `"account":"`...)
		dst = append(dst, g.plan.accounts[d.account].id...)
		dst = append(dst, `",`...)
	}
	dst = g.appendRefs(dst, d)
	dst = g.appendCounters(dst, d)
	if g.random.below(8) == 0 && d.kind <= reply {
		dst = append(dst, `"links":["https://news.example.org/a/`...)
		dst = strconv.AppendUint(dst, d.num>>40, 36)
		dst = append(dst, `"],`...)
	}
	dst = g.appendWords(dst, d, start)
	dst[len(dst)-1] = '}' // every part ends in a comma
	return dst
}

// appendTime writes mostly UTC and sometimes another offset of the same instant.
func (g *Generator) appendTime(dst []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	if g.random.below(16) == 0 {
		t = t.In(summer)
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}

var summer = time.FixedZone("", 2*3600)

func (g *Generator) appendAuthor(dst []byte, d *draft) []byte {
	h := mix(d.author)
	dst = append(dst, `"author":{`...)
	if d.flaw != noAuthor {
		dst = append(dst, `"id":"`...)
		dst = appendAuthorID(dst, d.net, d.author, g.plan)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"handle":"`...)
	dst = appendHandle(dst, h)
	dst = append(dst, `.example","followers":`...)
	dst = strconv.AppendUint(dst, h>>40%(1+h>>20%5000), 10)
	if isBot(d) {
		dst = append(dst, `,"bot":true`...)
	}
	stated := d.country // where the author lives, as far as it is said
	if d.country >= 0 {
		if g.random.below(4) == 0 { // where it happened goes before where the author lives
			stated = int16(g.random.below(uint64(len(g.plan.countries)+1))) - 1
		}
		dst = append(dst, `,"location":"`...)
		dst = append(dst, towns[h%uint64(len(towns))]...)
		dst = append(dst, '"')
		if stated >= 0 {
			dst = append(dst, `,"country":"`...)
			dst = append(dst, g.plan.countries[stated].code...)
			dst = append(dst, '"')
		}
	}
	dst = append(dst, `},`...)
	if d.country >= 0 && (stated != d.country || g.random.below(8) == 0) {
		dst = append(dst, `"place":{"country":"`...)
		dst = append(dst, g.plan.countries[d.country].code...)
		dst = append(dst, `"},`...)
	}
	return dst
}

func (g *Generator) appendRefs(dst []byte, d *draft) []byte {
	switch {
	case d.parent.num == 0:
		return dst
	case d.kind == reply:
		dst = append(dst, `"in_reply_to":{"id":"`...)
	default:
		dst = append(dst, `"object":{"id":"`...)
	}
	dst = appendID(dst, d.net, d.parent, g.plan)
	dst = append(dst, `","author_id":"`...)
	dst = appendAuthorID(dst, d.net, d.parent.author, g.plan)
	dst = append(dst, `"},`...)
	if d.kind == reply {
		dst = append(dst, `"root_id":"`...)
		dst = appendID(dst, d.net, d.root, g.plan)
		dst = append(dst, `",`...)
	}
	return dst
}

// appendCounters writes the totals that some networks send along.
func (g *Generator) appendCounters(dst []byte, d *draft) []byte {
	if d.kind != post || networks[d.net].reshares {
		return dst
	}
	r := g.random.next()
	dst = append(dst, `"counters":{"likes":`...)
	dst = strconv.AppendUint(dst, r%50, 10)
	dst = append(dst, `,"replies":`...)
	dst = strconv.AppendUint(dst, r>>8%12, 10)
	dst = append(dst, `,"shares":`...)
	dst = strconv.AppendUint(dst, r>>16%7, 10)
	dst = append(dst, `,"views":`...)
	dst = strconv.AppendUint(dst, r>>24%4000, 10)
	dst = append(dst, `,"observed_at":"`...)
	dst = time.UnixMilli(d.at).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	return append(dst, `"},`...)
}

// wordless reports whether d is a mere gesture.
func (d *draft) wordless() bool { return d.kind == reaction || d.kind == share && !d.matches }

// appendWords writes title, hashtags and text: each planted name in one of them, and everyday talk around it.
func (g *Generator) appendWords(dst []byte, d *draft, start int) []byte {
	if d.wordless() {
		return dst
	}
	x := &g.texts[d.tongue]
	var inText, tags [2]string // where the names go
	said := d.divs
	if d.kind == post && networks[d.net].titled {
		dst = append(dst, `"title":"`...)
		if n, ok := g.product(said[0]); ok && !n.hashtag && g.random.below(3) == 0 {
			dst = g.say(dst, x.plantedTitles, n.text)
			said[0] = none
		} else {
			dst = g.say(dst, x.plainTitles, "")
		}
		dst = append(dst, `",`...)
	}
	for i, div := range said {
		if n, ok := g.product(div); ok && n.hashtag {
			tags[i] = n.text
		} else if ok {
			inText[i] = n.text
		}
	}
	dst = g.appendTags(dst, tags)
	dst = append(dst, `"text":"`...)
	words := len(dst)
	if d.account >= 0 && d.divs[0] < 0 {
		dst = g.sentence(dst, words, x.greeting, "")
	}
	for _, n := range inText {
		if n == "" {
			continue
		}
		if d.company {
			dst = g.sentence(dst, words, x.company, n)
		} else {
			dst = g.sentence(dst, words, x.planted, n)
		}
	}
	if d.flaw == notUTF8 {
		dst = append(dst, 0xff, 0xfe)
	}
	dst = g.chatter(dst, words, start, x)
	return append(dst, `",`...)
}

// chatter adds everyday sentences: a few, or as many as the length asks for.
func (g *Generator) chatter(dst []byte, words, start int, x *text) []byte {
	if g.cfg.PadTo == 0 {
		for range 1 + g.random.below(4) {
			dst = g.sentence(dst, words, x.noise, "")
		}
		return dst
	}
	// Events without text are short; the others make up for them, within reason.
	target := g.cfg.PadTo + min(max(g.owed, -g.cfg.PadTo/3), g.cfg.PadTo) + int(g.random.below(120)) - 100
	for len(dst)-start < target || len(dst) == words {
		dst = g.sentence(dst, words, x.noise, "")
	}
	return dst
}

func (g *Generator) sentence(dst []byte, words int, of []phrase, name string) []byte {
	if len(dst) > words {
		dst = append(dst, ' ')
	}
	return g.say(dst, of, name)
}

func (g *Generator) say(dst []byte, of []phrase, name string) []byte {
	p := &of[g.random.below(uint64(len(of)))]
	dst = append(dst, p.before...)
	dst = append(dst, name...)
	return append(dst, p.after...)
}

// product picks one of the names of a division, if one is to be named.
func (g *Generator) product(div int16) (name, bool) {
	if div < 0 {
		return name{}, false
	}
	names := g.plan.names[div]
	return names[g.random.below(uint64(len(names)))], true
}

func (g *Generator) appendTags(dst []byte, tags [2]string) []byte {
	some := len(g.ambient) > 0 && g.random.below(5) == 0
	if tags == [2]string{} && !some {
		return dst
	}
	dst = append(dst, `"hashtags":[`...)
	if some {
		dst = appendString(dst, `"`, g.ambient[g.random.below(uint64(len(g.ambient)))])
	}
	for _, tag := range tags {
		if tag != "" {
			dst = appendString(dst, `"`, tag)
		}
	}
	dst[len(dst)-1] = ']'
	return append(dst, ',')
}

// appendString writes s, which needs no escaping, with its closing quote and a comma.
func appendString(dst []byte, before, s string) []byte {
	dst = append(dst, before...)
	dst = append(dst, s...)
	return append(dst, `",`...)
}

// appendID writes the native id of an event, in the manner of its network and with all 64 bits of its number.
func appendID(dst []byte, net uint8, r ref, v *vetted) []byte {
	switch networks[net].name {
	case "bluesky":
		dst = append(dst, "at://"...)
		dst = appendAuthorID(dst, net, r.author, v)
		dst = append(dst, "/app.bsky.feed.post/"...)
		return strconv.AppendUint(dst, r.num, 32)
	case "mastodon":
		dst = append(dst, "https://social.example/statuses/"...)
		return strconv.AppendUint(dst, r.num, 10)
	case "reddit":
		prefix := "t3_"
		if r.kind == reply {
			prefix = "t1_"
		}
		return strconv.AppendUint(append(dst, prefix...), r.num, 36)
	case "facebook":
		dst = strconv.AppendUint(dst, r.num>>32, 10)
		return strconv.AppendUint(append(dst, '_'), r.num&(1<<32-1), 10)
	case "youtube":
		return strconv.AppendUint(append(dst, "Ug"...), r.num, 36)
	case "feeds":
		dst = append(dst, "https://blog.example.net/entry/"...)
		return strconv.AppendUint(dst, r.num, 16)
	}
	return strconv.AppendUint(dst, r.num, 10)
}

// appendAuthorID writes the native id of an author: an account's own, or a number of the network's making.
func appendAuthorID(dst []byte, net uint8, author uint64, v *vetted) []byte {
	if author>>63 == 1 {
		return append(dst, v.accounts[author&0xffff].id...)
	}
	h := mix(author)
	switch networks[net].name {
	case "bluesky":
		return strconv.AppendUint(append(dst, "did:plc:"...), h, 32)
	case "mastodon":
		return strconv.AppendUint(append(dst, "https://social.example/users/"...), h, 36)
	case "reddit":
		return strconv.AppendUint(append(dst, "t2_"...), h, 36)
	case "youtube":
		return strconv.AppendUint(append(dst, "UC"...), h, 36)
	case "feeds":
		return strconv.AppendUint(append(dst, "https://blog.example.net/by/"...), h, 16)
	}
	return strconv.AppendUint(dst, h, 10)
}

func appendHandle(dst []byte, h uint64) []byte {
	for i := range 3 {
		dst = append(dst, syllables[h>>(4*i)&15]...)
	}
	return strconv.AppendUint(dst, h>>54, 10)
}
