package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// source is the file that declares Config. Its field comments are what Print
// writes, so that the documentation of a key exists once.
//
//go:embed config.go
var source string

// Print writes c as a complete configuration file: every key with its
// documentation above it. What it writes reads back as c; a database URL that
// may hold a password is not written.
func Print(w io.Writer, c Config) error {
	if c.Database.URL != "" {
		if _, err := parseURL("database.url", c.Database.URL); err != nil {
			return err
		}
	}
	docs, err := fieldComments(source)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.WriteString("# Configuration of joinery. Every key is shown; those with their default may be\n" +
		"# left out. Relative paths are relative to the directory of this file.\n" +
		"#\n# The environment may give some in place of the file, for containers:\n")
	for _, name := range Variables() {
		out.WriteString("#   " + name + "\n")
	}
	if err := printStruct(&out, docs, reflect.ValueOf(c), ""); err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}

// printStruct writes the fields of v, each with its comment, indented.
func printStruct(out *bytes.Buffer, docs map[string]string, v reflect.Value, indent string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if indent == "" || i > 0 {
			out.WriteByte('\n')
		}
		for line := range strings.Lines(docs[v.Type().Name()+"."+f.Name]) {
			out.WriteString(indent + "# " + line)
		}
		out.WriteString(indent + key(f) + ":")
		if f.Type.Kind() == reflect.Struct {
			out.WriteByte('\n')
			if err := printStruct(out, docs, v.Field(i), indent+"  "); err != nil {
				return err
			}
			continue
		}
		text, err := scalar(v.Field(i).Interface())
		if err != nil {
			return fmt.Errorf("print %s: %w", key(f), err)
		}
		out.WriteString(" " + text)
	}
	return nil
}

// scalar gives one value as YAML, with its newline.
func scalar(value any) (string, error) {
	if d, ok := value.(time.Duration); ok {
		value = shortDuration(d)
	}
	text, err := yaml.MarshalWithOptions(value, yaml.Flow(reflect.TypeOf(value).Kind() == reflect.Slice))
	return string(text), err
}

// shortDuration is d.String without the zero units at its end: 2m, not 2m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// fieldComments reads the comments of all struct fields in Go source, by
// "Type.Field".
func fieldComments(source string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("read field documentation: %w", err)
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = f.Doc.Text()
				}
			}
		}
		return false
	})
	return docs, nil
}
