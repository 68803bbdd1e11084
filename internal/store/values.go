package store

import "strings"

// values is the rows that one statement works on.
type values struct {
	names, casts []string
	rows         int
	args         []any
}

// valuesOf begins rows with columns such as "peer INTEGER, reason TEXT". The
// types are those of a CAST.
func valuesOf(columns string) *values {
	v := &values{}
	for column := range strings.SplitSeq(columns, ",") {
		f := strings.Fields(column)
		v.names, v.casts = append(v.names, f[0]), append(v.casts, "CAST(? AS "+f[1]+")")
	}
	return v
}

func (v *values) add(row ...any) {
	v.rows++
	v.args = append(v.args, row...)
}

// with puts the rows before a statement, which reads them as table v. Its own
// arguments come after v.args.
func (v *values) with(statement string) string {
	row := ", (" + strings.Join(v.casts, ", ") + ")"
	return "WITH v (" + strings.Join(v.names, ", ") + ") AS (VALUES " + strings.Repeat(row, v.rows)[2:] + ") " + statement
}

// inRuns has fn work on all of list, in runs of 64, 32 and so on down to 1, so
// that few different statements are prepared.
func inRuns[T any](list []T, fn func(run []T) error) error {
	for size := 64; len(list) > 0; {
		if len(list) < size {
			size /= 2
			continue
		}
		if err := fn(list[:size]); err != nil {
			return err
		}
		list = list[size:]
	}
	return nil
}
