package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFileBytes bounds a configuration file: whatever is longer is another file.
const maxFileBytes = 1 << 20

// Load reads the file at path and what the environment gives in its place, checks
// every value and makes paths absolute. It opens nothing that the file names; see CheckFiles for that.
func Load(path string) (Config, error) {
	c, err := Read(path)
	if err != nil {
		return Config{}, err
	}
	if c, err = c.FromEnvironment(os.Environ()); err != nil {
		return Config{}, err
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: find its directory: %w", path, err)
	}
	return c.Resolve(dir), nil
}

// Read reads the file at path as it stands, without judging values and without
// resolving paths.
func Read(path string) (Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, fmt.Errorf("configuration %s does not exist: name yours with --config, or make one with `joinery config print > %s`", path, path)
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	if info.Size() > maxFileBytes {
		return Config{}, fmt.Errorf("configuration %s is longer than %d bytes: this is no configuration of joinery", path, maxFileBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Parse reads a configuration from YAML text on top of the defaults. Every key
// must be one of ours and have a value of its kind; all that is wrong is told at
// once, by line. Values are never repeated: somebody may have put a passphrase
// where a path belongs.
func Parse(text []byte) (Config, error) {
	c := Default()
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return Config{}, syntaxError(err)
	}
	var docs []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			docs = append(docs, doc.Body)
		}
	}
	switch len(docs) {
	case 0:
		return c, nil
	case 1:
	default:
		return Config{}, at(docs[1], "a second YAML document: a configuration is one document")
	}
	var r reader
	r.mapping(docs[0], reflect.ValueOf(&c).Elem(), "")
	if c.Database.URL != "" && !r.given["database.path"] {
		c.Database.Path = "" // the default is for those who name no database
	}
	if c.Database.URL != "" { // judged here, because what is read may be printed
		_, err := parseURL("database.url", c.Database.URL)
		r.wrong = append(r.wrong, err)
	}
	if err := errors.Join(r.wrong...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Resolve returns c with every relative path taken from dir.
func (c Config) Resolve(dir string) Config {
	for _, p := range c.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c
}

// reader fills structs from YAML nodes and collects what is wrong.
type reader struct {
	wrong []error
	given map[string]bool // keys that have a value, by their path in the file
}

func (r *reader) fail(n ast.Node, format string, args ...any) {
	r.wrong = append(r.wrong, at(n, format, args...))
}

// mapping fills the struct v from n. The path of its key in the file is prefix,
// empty for the document.
func (r *reader) mapping(n ast.Node, v reflect.Value, prefix string) {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.fail(n, "%s", wantSettings(prefix))
		return
	}
	for it := m.MapRange(); it.Next(); {
		key := it.Key()
		name := key.GetToken().Value
		field, ok := fieldByKey(v, name)
		if !ok {
			r.fail(key, "unknown key %s%s", prefix+name, suggest(name, keysOf(v.Type()), prefix))
			continue
		}
		r.value(it.Value(), field, prefix+name)
	}
}

// value fills one field, a struct or a scalar.
func (r *reader) value(n ast.Node, field reflect.Value, path string) {
	switch n.Type() {
	case ast.NullType:
		r.fail(n, "%s has no value: give it one, or remove the line to keep the default", path)
		return
	case ast.AliasType, ast.AnchorType, ast.TagType:
		r.fail(n, "%s: YAML anchors, aliases and tags are not understood here: write the value out", path)
		return
	}
	if field.Kind() == reflect.Struct {
		r.mapping(n, field, path+".")
		return
	}
	if r.given == nil {
		r.given = map[string]bool{}
	}
	r.given[path] = true
	switch dst := field.Addr().Interface().(type) {
	case *string:
		if t := n.Type(); t != ast.StringType && t != ast.LiteralType {
			r.fail(n, "%s: want text: put the value in quotes", path)
			return
		}
		r.decode(n, dst, path, "text")
	case *time.Duration:
		r.duration(n, dst, path)
	case *bool:
		if n.Type() != ast.BoolType {
			r.fail(n, "%s: want true or false", path)
			return
		}
		r.decode(n, dst, path, "true or false")
	case *int:
		if n.Type() != ast.IntegerType {
			r.fail(n, "%s: want a whole number", path)
			return
		}
		r.decode(n, dst, path, "a whole number")
	default:
		// A field of a new kind without a case here is a defect that every
		// test of this package meets.
		r.fail(n, "%s: fields of type %T cannot be read", path, dst)
	}
}

func (r *reader) decode(n ast.Node, dst any, path, want string) {
	if err := yaml.NodeToValue(n, dst, yaml.Strict()); err != nil {
		r.fail(n, "%s: want %s", path, want)
	}
}

func (r *reader) duration(n ast.Node, dst *time.Duration, path string) {
	var text string
	if n.Type() == ast.StringType {
		r.decode(n, &text, path, "text")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.fail(n, `%s: want a time with its unit, such as 500ms, 10s or 2m`, path)
		return
	}
	*dst = d
}

// at is an error at the line of n.
func at(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("  line %d: %s", n.GetToken().Position.Line, fmt.Sprintf(format, args...))
}

// syntaxError tells where the YAML parser stopped. Its own text shows lines of the
// source, and its message may repeat a value.
func syntaxError(err error) error {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		return fmt.Errorf("  line %d: is not valid YAML here: look for a key given twice, a tab, a bracket left open, or text that wants quotes",
			e.GetToken().Position.Line)
	}
	return errors.New("  this is not YAML")
}

func wantSettings(prefix string) string {
	if prefix == "" {
		return "want settings of the form key: value; `joinery config print` shows all of them"
	}
	return strings.TrimSuffix(prefix, ".") + ": want settings of the form key: value on indented lines below it"
}

// key gives the key of a struct field in the file.
func key(f reflect.StructField) string { return f.Tag.Get("yaml") }

func fieldByKey(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if key(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, key(t.Field(i)))
	}
	return keys
}

// suggest names the known key that a misspelt one most likely meant, or all
// that would be possible.
func suggest(name string, known []string, prefix string) string {
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, nearest) <= max(2, len(name)/3) {
		return fmt.Sprintf(": did you mean %s?", prefix+nearest)
	}
	return ": known here are " + strings.Join(known, ", ")
}

// distance is the edit distance of a and b (Levenshtein), in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
