package generate

import (
	"math"
	"math/bits"
)

// random is xoroshiro128+: its own few lines, so that a seed gives the same events under every Go release.
type random struct{ a, b uint64 }

func (r *random) next() uint64 {
	a, b := r.a, r.b
	sum := a + b
	b ^= a
	r.a = bits.RotateLeft64(a, 24) ^ b ^ b<<16
	r.b = bits.RotateLeft64(b, 37)
	return sum
}

// below gives a number in [0, n); n must not be 0.
func (r *random) below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.next(), n)
	return hi
}

func (g *Generator) chance(share float64) bool {
	return share > 0 && float64(g.random.next()>>11)*0x1p-53 < share
}

// mix is a bijection of 64 bits (the finalizer of splitmix64): different numbers stay different.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// circle is how many people speak in a node on one network. A few do most of the talking.
const circle = 3000

// zipfTable holds quantiles of Zipf's law with exponent 0.9 over a circle.
func zipfTable() (table [1 << 14]uint16) {
	var total float64
	for rank := range circle {
		total += math.Pow(float64(rank+1), -0.9)
	}
	var sum float64
	at := 0
	for rank := range circle {
		sum += math.Pow(float64(rank+1), -0.9)
		for at < len(table) && float64(at) < sum/total*float64(len(table)) {
			table[at] = uint16(rank)
			at++
		}
	}
	for ; at < len(table); at++ {
		table[at] = circle - 1
	}
	return table
}

// person picks who speaks: mostly one of the circle of the event's first node, else anybody. A person is a number,
// unique within a network.
func (g *Generator) person(d *draft) uint64 {
	if d.matches && g.random.below(12) > 0 {
		var nodes [3]node
		if of := g.nodes(nodes[:0], d); len(of) > 0 {
			circle := 1 + uint64(of[0].division*len(g.plan.territories)+of[0].territory)
			return circle<<32 | uint64(g.zipf[g.random.below(uint64(len(g.zipf)))])
		}
	}
	return g.everybody()
}

// everybody is the rest of the world: eight circles in one.
func (g *Generator) everybody() uint64 {
	return uint64(g.zipf[g.random.below(uint64(len(g.zipf)))])*8 + g.random.below(8)
}

// companyAuthor marks the author of what the owner of an account writes.
func companyAuthor(account int16) uint64 { return 1<<63 | uint64(account) }

// isBot is a lasting trait of a person.
func isBot(d *draft) bool { return !d.company && mix(d.author<<8|uint64(d.net))%100 < 3 }

func (g *Generator) network() uint8 {
	r := int(g.random.below(100))
	for i, n := range networks {
		if r -= n.weight; r < 0 {
			return uint8(i)
		}
	}
	return 0
}
