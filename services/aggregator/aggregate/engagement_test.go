package aggregate

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"polyphony/pkg/social"
	"polyphony/pkg/warehouse"
)

var hour = time.Date(2026, 5, 25, 14, 0, 0, 0, time.UTC)

// TestGains: what is decided for a post and for the single events beside it, and that nothing is when it stands so already.
func TestGains(t *testing.T) {
	const none = social.Unreported
	here, there := social.Node{Division: "heart", Territory: "north"}, social.Node{Division: "lung", Territory: "north"}
	post, share, self := social.Key{1}, social.Key{2}, social.Key{3}
	told := func(hours int, shares, likes, views int64) social.Counters {
		return social.Counters{Shares: shares, Likes: likes, Views: views, Replies: none, ObservedAt: hour.Add(time.Duration(hours) * time.Hour)}
	}
	stands := func(k social.Key, node social.Node, retracted bool) social.Mention {
		return social.Mention{Node: node, EventKey: k, Time: hour, Retracted: retracted}
	}
	place := func(k social.Key, node social.Node, hours int, part warehouse.GainPart) warehouse.GainPlace {
		return warehouse.GainPlace{Node: node, Time: hour.Add(time.Duration(hours) * time.Hour).UnixMilli(), EventKey: k, Part: part}
	}
	f := func(what string, e *engagement, want map[warehouse.GainPlace]warehouse.Gain) {
		t.Helper()
		e.decided = map[warehouse.GainPlace]warehouse.DecidedGain{}
		for round := range 2 {
			got := map[warehouse.GainPlace]warehouse.Gain{}
			for _, change := range e.changes() {
				if round > 0 {
					t.Errorf("%s: decided twice: %+v", what, change)
				}
				if !change.Gone {
					got[change.GainPlace] = change.Gain
				}
				e.decided[change.GainPlace] = change
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); round == 0 && diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
	}
	asked := map[social.Key]bool{post: true}
	rising := map[social.Key][]social.Counters{post: {told(1, 2, 5, none), told(2, none, 3, 7), told(3, 2, none, none)}}
	f("rises and falls, where it stands", &engagement{asked: asked, observations: rising,
		standing: []social.Mention{stands(post, here, false), stands(post, there, true)}},
		map[warehouse.GainPlace]warehouse.Gain{
			place(post, here, 1, warehouse.TotalGain): {Shares: 2, Reactions: 5},
			place(post, here, 2, warehouse.TotalGain): {Reactions: -2, Views: 7},
		})
	f("shown already", &engagement{asked: asked, observations: map[social.Key][]social.Counters{post: {told(0, 2, 5, none), told(1, 4, 5, none)}},
		standing: []social.Mention{stands(post, here, false)},
		shown:    map[warehouse.GainPlace]warehouse.Gain{place(post, here, 0, warehouse.TotalGain): {Shares: 2, Reactions: 5}}},
		map[warehouse.GainPlace]warehouse.Gain{place(post, here, 1, warehouse.TotalGain): {Shares: 2}})
	single := func(k, parent social.Key, kind social.Kind, node social.Node) warehouse.Single {
		return warehouse.Single{GainPlace: place(k, node, 0, warehouse.SingleGain), Kind: kind, Parent: parent}
	}
	beside := func(parent social.Key, kind social.Kind) *engagement {
		return &engagement{asked: asked, observations: map[social.Key][]social.Counters{post: {told(1, 0, none, none)}},
			standing: []social.Mention{stands(post, here, false)}, near: []social.Mention{stands(share, here, false), stands(share, there, false)},
			singles: []warehouse.Single{single(share, parent, kind, here), single(share, parent, kind, there)}}
	}
	f("a share beside a total", beside(post, social.Share),
		map[warehouse.GainPlace]warehouse.Gain{place(share, here, 0, warehouse.SingleGain): {Shares: -1}})
	f("a reaction beside a total of shares", beside(post, social.Reaction), nil)
	f("a share of another post", beside(social.Key{9}, social.Share), nil)
	itself := &engagement{asked: map[social.Key]bool{self: true}, observations: map[social.Key][]social.Counters{self: {told(1, 0, none, none)}},
		standing: []social.Mention{stands(self, here, false)}, near: []social.Mention{stands(self, here, false)},
		singles: []warehouse.Single{single(self, self, social.Share, here)}}
	f("a share of itself", itself, nil)
}

// TestObservationsOfOneTime: the greatest of each total holds, wherever it was told.
func TestObservationsOfOneTime(t *testing.T) {
	post := social.Key{1}
	of := func(at time.Time, likes, shares int64) social.Counters {
		return social.Counters{Likes: likes, Shares: shares, Views: social.Unreported, Replies: social.Unreported, ObservedAt: at}
	}
	carried := of(hour, 3, social.Unreported)
	for range 2 {
		list := []social.Counters{of(hour.Add(time.Hour), 9, 9), of(hour, 1, 4)}
		got := observations(map[social.Key][]social.Counters{post: list}, []social.Mention{{EventKey: post, Time: hour, Counters: &carried}, {EventKey: post, Time: hour}})
		if diff := cmp.Diff([]social.Counters{of(hour, 3, 4), of(hour.Add(time.Hour), 9, 9)}, got[post]); diff != "" {
			t.Error(diff)
		}
		slices.Reverse(list)
	}
}
