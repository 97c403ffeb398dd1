// Package polyphony is the root of the module; its tests hold the whole tree to its conventions.
package polyphony
