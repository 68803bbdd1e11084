package api_test

import (
	"encoding/base64"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maker makes values from the schemas of the document, valid ones, and among
// them such as lie at the ends of what is allowed.
type maker struct {
	*rand.Rand
	root map[string]any      // the document
	ids  map[string][]string // identifiers that there are, by prefix
}

// rareness of what makes a value special.
const (
	knownID  = 0.7 // an identifier is one that there is
	atTheEnd = 0.4 // a number or a length is the least or the most allowed
	leftOut  = 0.5 // a member that need not be there is not
)

func (m *maker) chance(p float64) bool { return m.Float64() < p }

func pick[T any](m *maker, list []T) T { return list[m.IntN(len(list))] }

// resolve follows references.
func (m *maker) resolve(s map[string]any) map[string]any {
	for {
		ref, ok := s["$ref"].(string)
		if !ok {
			return s
		}
		s = at(m.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
}

// at walks down objects; nil where there is nothing.
func at(v map[string]any, path ...string) map[string]any {
	for _, name := range path {
		v, _ = v[name].(map[string]any)
	}
	return v
}

// value makes a value that s allows.
func (m *maker) value(s map[string]any) any {
	s = m.resolve(s)
	for _, choice := range []string{"oneOf", "anyOf"} {
		if list, ok := s[choice].([]any); ok {
			return m.value(pick(m, list).(map[string]any))
		}
	}
	if list, ok := s["enum"].([]any); ok {
		return pick(m, list)
	}
	if fixed, ok := s["const"]; ok {
		return fixed
	}
	switch m.kind(s) {
	case "object":
		return m.object(s)
	case "array":
		return m.array(s)
	case "boolean":
		return m.chance(0.5)
	case "integer", "number":
		return m.number(s)
	case "null":
		return nil
	case "string":
		return m.text(s)
	}
	return pick(m, []any{nil, true, 1, "text", []any{}, map[string]any{}})
}

func (m *maker) kind(s map[string]any) string {
	switch kind := s["type"].(type) {
	case string:
		return kind
	case []any:
		return pick(m, kind).(string)
	}
	return ""
}

func (m *maker) object(s map[string]any) any {
	out := map[string]any{}
	required, _ := s["required"].([]any)
	properties := at(s, "properties")
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names) // so that a seed makes the same again
	for _, name := range names {
		if slices.Contains(required, any(name)) || !m.chance(leftOut) {
			out[name] = m.value(at(properties, name))
		}
	}
	if more := at(s, "additionalProperties"); more != nil {
		for range m.IntN(3) {
			out[m.word(8)] = m.value(more)
		}
	}
	return out
}

// manyItems bounds arrays: longer ones are for tests of their own.
const manyItems = 12

func (m *maker) array(s map[string]any) any {
	least, most := m.bounds(s, "minItems", "maxItems", 3)
	out := []any{}
	for range m.between(least, min(most, max(least, manyItems))) {
		out = append(out, m.value(at(s, "items")))
	}
	return out
}

func (m *maker) bounds(s map[string]any, least, most string, usual int) (int, int) {
	low, high := 0, usual
	if v, ok := s[least].(float64); ok {
		low, high = int(v), int(v)+usual
	}
	if v, ok := s[most].(float64); ok {
		high = int(v)
	}
	return low, max(low, high)
}

func (m *maker) between(least, most int) int {
	if m.chance(atTheEnd) {
		return pick(m, []int{least, most})
	}
	return least + m.IntN(most-least+1)
}

func (m *maker) number(s map[string]any) any {
	low, high := int64(-1000), int64(1000)
	if v, ok := s["minimum"].(float64); ok {
		low, high = int64(v), max(int64(v), high)
	}
	if v, ok := s["maximum"].(float64); ok {
		high = int64(v)
	}
	low = min(low, high)
	if m.chance(atTheEnd) {
		return pick(m, []int64{low, high})
	}
	return low + m.Int64N(high-low+1)
}

func (m *maker) text(s map[string]any) string {
	pattern, _ := s["pattern"].(string)
	if prefix, _, isID := strings.Cut(strings.TrimPrefix(pattern, "^"), "_[0-9a-f]"); isID && len(m.ids[prefix]) > 0 && m.chance(knownID) {
		return pick(m, m.ids[prefix])
	}
	least, most := m.bounds(s, "minLength", "maxLength", 20)
	most = min(most, max(least, 4000))
	switch {
	case s["contentEncoding"] == "base64":
		return base64.StdEncoding.EncodeToString(m.bytes(m.between((least+3)/4*3, most/4*3)))
	case s["format"] == "date-time":
		return pick(m, []time.Time{{}, time.Unix(0, 0), time.Now(), time.Now().AddDate(1, 0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)}).UTC().Format(time.RFC3339Nano)
	case pattern != "":
		return m.matching(pattern)
	}
	return m.word(m.between(least, most))
}

func (m *maker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.IntN(256))
	}
	return b
}

// word makes n characters: plain ones, or all that JSON lets through.
func (m *maker) word(n int) string {
	plain := m.chance(0.6)
	runes := make([]rune, n)
	for i := range runes {
		if plain {
			runes[i] = rune('a' + m.IntN(26))
		} else {
			runes[i] = pick(m, []rune("\x00\x01\n\t\x7f\"\\/<>& \u00a0\u200b\u202e\ufeff\ufffdäß漢🙂'%_;-.:0Z"))
		}
	}
	return string(runes)
}

// matching makes a text that a pattern matches.
func (m *maker) matching(pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	m.match(&b, tree.Simplify())
	return b.String()
}

func (m *maker) match(b *strings.Builder, t *syntax.Regexp) {
	repeat := func(least, most int) {
		for range m.between(least, most) {
			m.match(b, t.Sub[0])
		}
	}
	switch t.Op {
	case syntax.OpLiteral:
		b.WriteString(string(t.Rune))
	case syntax.OpCharClass:
		i := m.IntN(len(t.Rune)/2) * 2
		low, high := t.Rune[i], min(t.Rune[i+1], max(t.Rune[i], unicode.MaxLatin1))
		b.WriteRune(low + rune(m.IntN(int(high-low)+1)))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(byte(' ' + m.IntN(95)))
	case syntax.OpStar:
		repeat(0, 5)
	case syntax.OpPlus:
		repeat(1, 5)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		most := t.Max
		if most < 0 {
			most = t.Min + 5
		}
		repeat(t.Min, most)
	case syntax.OpAlternate:
		m.match(b, pick(m, t.Sub))
	default: // concatenations and groups; anchors have nothing in them
		for _, sub := range t.Sub {
			m.match(b, sub)
		}
	}
}

// spoil changes a value somewhere, most often so that it is not allowed any more.
func (m *maker) spoil(v any) any {
	if m.chance(0.5) {
		switch v := v.(type) {
		case map[string]any:
			return m.spoilObject(v)
		case []any:
			if len(v) > 0 {
				v = slices.Clone(v)
				i := m.IntN(len(v))
				v[i] = m.spoil(v[i])
				return v
			}
		}
	}
	return pick(m, []any{
		nil, true, 0, -1, 1e300, 0.5, int64(1) << 62, "", "x", strings.Repeat("x", 5000), m.word(12), []any{}, []any{nil},
		map[string]any{}, map[string]any{"x": 1}, "2026-13-40T99:99:99Z", "org_0000000000002", "0x1",
	})
}

func (m *maker) spoilObject(v map[string]any) any {
	out := map[string]any{}
	names := make([]string, 0, len(v))
	for name, member := range v {
		names, out[name] = append(names, name), member
	}
	slices.Sort(names)
	switch {
	case len(names) == 0 || m.chance(0.2):
		out[m.word(5)] = m.spoil(nil)
	case m.chance(0.3):
		delete(out, pick(m, names))
	default:
		name := pick(m, names)
		out[name] = m.spoil(out[name])
	}
	return out
}
