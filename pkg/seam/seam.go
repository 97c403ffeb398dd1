// Package seam names the points between two effects: before and after every publish, acknowledgement, insert and purge,
// and every question, answer and note in a bucket.
// A process that ends or freezes at any of them must do no harm. In the programs that people run a seam is nothing; built
// with the tag faults, a process can be told to kill or stop itself there, which TestFaults does, or to die of an event, which
// TestPoison does.
package seam

// Effect is what happens between the two seams around it.
type Effect string

// The effects that others can see. What one is done to (a stream's subject, a table) is told beside it.
const (
	Publish     Effect = "publish"
	Acknowledge Effect = "acknowledge"
	Insert      Effect = "insert"
	Purge       Effect = "purge"
	Request     Effect = "request"
	Answer      Effect = "answer"
	Put         Effect = "put"
)
