package social

// Node is one division in one territory: the place where metrics live and where people can act.
type Node struct{ Division, Territory string }

// String gives "division/territory".
func (n Node) String() string { return n.Division + "/" + n.Territory }

// Compare orders nodes by division, then territory.
func (n Node) Compare(o Node) int {
	switch {
	case n.Division != o.Division && n.Division < o.Division, n.Division == o.Division && n.Territory < o.Territory:
		return -1
	case n == o:
		return 0
	}
	return 1
}

const (
	// Elsewhere is the territory of what a division hears from countries that none of its territories serves.
	Elsewhere = "zz"
	// CompanyDivision is reserved for talk about the company itself.
	CompanyDivision = "company"
	// MaxName bounds names of sources, divisions, territories and business units: they become subject tokens.
	MaxName = 32
	// MaxID bounds native ids, in bytes.
	MaxID = 1024
)

// ValidName reports whether s has the form [a-z][a-z0-9-]{0,31}.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > MaxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
