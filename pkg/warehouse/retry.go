package warehouse

import (
	"errors"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// Retry tells whether an error of this package may pass by itself: a lost connection, a time-out, a server that is
// starting, full, out of memory or behind with its merges, a schema that is about to be created, a right that is about
// to be granted. Unknown errors are worth another try. Only what is wrong with our own statement, with a time that the
// tables have no place for, or with a server that only its operator can mend, is not.
func Retry(err error) bool {
	var code proto.Error
	var asked *clickhouse.Exception
	var sent *ch.Exception
	switch {
	case err == nil, errors.Is(err, errTime), errors.Is(err, ErrUnfit):
		return false
	case errors.As(err, &asked):
		code = proto.Error(asked.Code)
	case errors.As(err, &sent):
		code = sent.Code
	}
	return !ourBug(code)
}

// Blames tells whether what was to be stored may be why, and not ClickHouse or our own statement: it says a time that the tables have no
// place for, or too many of them.
func Blames(err error) bool {
	var sent *ch.Exception
	return errors.Is(err, errTime) || errors.As(err, &sent) && sent.Code == proto.ErrTooManyPartitions
}

// ourBug lists what ClickHouse says to a statement that does not fit its tables.
func ourBug(code proto.Error) bool {
	switch code {
	case proto.ErrSyntaxError,
		proto.ErrUnknownIdentifier,
		proto.ErrUnknownFunction,
		proto.ErrUnknownSetting,
		proto.ErrUnknownType,
		proto.ErrNoSuchColumnInTable,
		proto.ErrNotFoundColumnInBlock,
		proto.ErrThereIsNoColumn,
		proto.ErrNumberOfColumnsDoesntMatch,
		proto.ErrBlocksHaveDifferentStructure,
		proto.ErrTypeMismatch,
		proto.ErrIllegalTypeOfArgument,
		proto.ErrNumberOfArgumentsDoesntMatch,
		proto.ErrCannotConvertType,
		proto.ErrDuplicateColumn,
		proto.ErrTooManyPartitions:
		return true
	}
	return false
}
