package nodes

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	lumenova "polyphony/deploy/nodes"
	"polyphony/pkg/social"
)

// Posts of 350 bytes, give or take: what people write, and what concerns nobody here.
var benchPosts = map[string]string{
	"text=ascii/miss": "So we finally moved the piano into the new flat yesterday, four flights of stairs and no lift, and my brother in law only dropped it once. " +
		"The neighbours were lovely about the noise, one of them even brought cake and a bottle of something sweet. Today everything hurts, I have bruises in places " +
		"I cannot explain, but it sounds wonderful by the window. Never again, I promise.",
	"text=ascii/hit": "Third week on Velurex and honestly the burning has stopped. My insurance first said no, then the price came down and now they pay most of it. " +
		"The pharmacist asked whether I had tried Skavora before, which I had, and it did nothing for my eczema. Sleeping through the night again is the best part, " +
		"the itching used to wake me at three. Has anybody been on it for longer? Thanks.",
	"text=german/miss": "Gestern haben wir endlich das Klavier in die neue Wohnung geschleppt, vier Stockwerke ohne Aufzug, und mein Schwager hat es nur einmal fallen lassen. " +
		"Die Nachbarn waren großartig, eine brachte sogar Kuchen und eine Flasche mit etwas Süßem vorbei. Heute tut mir alles weh, blaue Flecken überall, " +
		"aber am Fenster klingt es wunderschön. Nie wieder, versprochen, außer für Möbel.",
	"text=german/hit": "Seit drei Wochen nehme ich Velurexan, und das Brennen ist tatsächlich weg. Die Krankenkasse wollte die Kosten zuerst nicht übernehmen, jetzt bleibt " +
		"nur noch eine kleine Zuzahlung. Der Apotheker fragte, ob ich vorher schon Skavora hatte: ja, gegen meine Schuppenflechte half es überhaupt nicht. " +
		"Endlich schlafe ich wieder durch. Nimmt es hier jemand schon länger? Danke für jede Antwort.",
	"text=japanese/miss": "昨日やっとピアノを新しい部屋に運びました。四階まで階段だけで、エレベーターはありません。弟が一度だけ落としましたが、音は大丈夫でした。" +
		"隣の人たちはとても親切で、ケーキまで持ってきてくれました。今日は体中が痛いですが、窓辺で弾くと素晴らしい響きです。",
	"text=japanese/hit": "三週間前からベルレックスを使っています。かゆみがなくなって、夜もよく眠れるようになりました。最初は副作用が心配でしたが、今のところ大丈夫です。" +
		"前はアトピーの薬を色々試しましたが、あまり効きませんでした。長く使っている方はいますか。",
}

// manyTerms is a directory whose queries hold n terms over 40 divisions, as a company of a hundred brands has them.
func manyTerms(n int) fstest.MapFS {
	fsys := directory(usual)
	random := rand.New(rand.NewPCG(1, 2))
	syllables := strings.Fields("ba be bi bo bu ca ce ci co cu da de di do du fa fe fi fo fu ga ge gi go gu la le li lo lu ma me mi mo mu na ne ni no nu ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo vu xa xe xi zo zu")
	word := func() string {
		var b strings.Builder
		for range 3 + random.IntN(3) {
			b.WriteString(syllables[random.IntN(len(syllables))])
		}
		return b.String()
	}
	for d := range 40 {
		terms := make([]string, n/40)
		for i := range terms {
			switch random.IntN(10) {
			case 0:
				terms[i] = fmt.Sprintf("%q", word()+" "+word())
			case 1:
				terms[i] = word() + "*"
			case 2:
				terms[i] = "*" + word() + "*"
			default:
				terms[i] = word()
			}
		}
		fsys[fmt.Sprintf("divisions/d%d.yaml", d)] = &fstest.MapFile{Data: fmt.Appendf(nil, "division: d%d\nlisten: '%s'\n", d, strings.Join(terms, " OR "))}
	}
	return fsys
}

// go test ./pkg/nodes -run '^$' -bench BenchmarkMatch -benchmem
func BenchmarkMatch(b *testing.B) {
	example, err := Load(lumenova.Files)
	if err != nil {
		b.Fatal(err)
	}
	large, err := Load(manyTerms(5000))
	if err != nil {
		b.Fatal(err)
	}
	for _, company := range []struct {
		name  string
		rules *Rules
	}{{"company=example", example}, {"company=5000terms", large}} {
		for _, name := range []string{"text=ascii/miss", "text=ascii/hit", "text=german/miss", "text=german/hit", "text=japanese/miss", "text=japanese/hit"} {
			b.Run(company.name+"/"+name, func(b *testing.B) {
				m := company.rules.Matcher()
				e := &social.Event{Source: "mastodon", Kind: social.Post, Text: benchPosts[name], Lang: "de", PlaceCountry: "DE", Author: social.Author{ID: "109302847"}}
				if strings.Contains(name, "japanese") {
					e.PlaceCountry = "JP"
				}
				if got := len(m.Match(e)) > 0; company.name == "company=example" && got != strings.HasSuffix(name, "hit") {
					b.Fatalf("matched: %v", got)
				}
				b.SetBytes(int64(len(e.Text)))
				b.ReportAllocs()
				for b.Loop() {
					m.Match(e)
				}
			})
		}
	}
}

// go test ./pkg/nodes -run '^$' -bench BenchmarkLoad -benchmem
func BenchmarkLoad(b *testing.B) {
	for name, fsys := range map[string]interface{}{"company=example": nil, "company=5000terms": manyTerms(5000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if many, ok := fsys.(fstest.MapFS); ok {
					_, err = Load(many)
				} else {
					_, err = Load(lumenova.Files)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
