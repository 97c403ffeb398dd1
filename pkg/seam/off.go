//go:build !faults

package seam

// Before and After are the seams around an effect on something.
func Before(Effect, string) {}

// After is the other one.
func After(Effect, string) {}

// Taste does what an event does to its readers that holds what kills them.
func Taste([]byte) {}
