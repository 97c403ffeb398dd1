package social

import "fmt"

// Code says why an event could not be processed. The codes are part of the contract.
type Code string

// The codes of the ingester.
const (
	InvalidJSON  Code = "invalid_json"
	InvalidUTF8  Code = "invalid_utf8"
	MissingField Code = "missing_field"
	InvalidField Code = "invalid_field"
	UnknownKind  Code = "unknown_kind"
	TooLarge     Code = "too_large"
	TooLate      Code = "too_late"
	InFuture     Code = "in_future"
)

// ForeignSource is the detail of an event that was sent with a token which is not for its source.
const ForeignSource = "source: not among those of this token"

// Invalid is bad input: the sender has to change the event, sending it again cannot help.
type Invalid struct {
	Code   Code
	Detail string // the field, or what is wrong; never a value of the event
}

func (e *Invalid) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Detail) }
