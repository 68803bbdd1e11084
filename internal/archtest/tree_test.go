package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// module is the import path of the root package.
const module = "joinery"

// pkg is what `go list` tells about one package.
type pkg struct {
	ImportPath   string
	Standard     bool
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Module       *struct {
		Path string
		Main bool
	}
}

// ours tells whether p belongs to this module.
func (p pkg) ours() bool { return p.Module != nil && p.Module.Main }

// name is the path of p in this module: "internal/store", "" for the root.
func (p pkg) name() string { return inModule(p.ImportPath) }

// inModule turns an import path of this module into a path in it, and leaves
// every other as it is.
func inModule(importPath string) string {
	if importPath == module {
		return ""
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// isOurs tells whether an import path belongs to this module.
func isOurs(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

// importPath is the inverse of inModule, for names of the tables: a name is one
// of ours when there is such a package.
func importPath(tree map[string]pkg, name string) string {
	own := strings.TrimSuffix(module+"/"+name, "/")
	if _, ok := tree[own]; ok || rooms[name].why != "" {
		return own
	}
	return name
}

// tree lists every package of the module and everything it depends on, tests
// included, as they are built on Linux with cgo switched on: what needs cgo then
// shows it.
var tree = sync.OnceValues(func() (map[string]pkg, error) {
	if err := dependOnSource(); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-e", "-deps", "-test",
		"-json=ImportPath,Standard,CgoFiles,Imports,TestImports,XTestImports,Deps,Module", module+"/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOOS=linux", "GOFLAGS=-buildvcs=false")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + "\n" + stderr.String())
	}
	packages := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, err
		}
		// "p [p.test]" and "p.test" are what tests make of p.
		if strings.Contains(p.ImportPath, " ") || strings.HasSuffix(p.ImportPath, ".test") {
			continue
		}
		packages[p.ImportPath] = p
	}
})

// dependOnSource looks at every source file, so that `go test` does not take a
// result from its cache after one of them changed: it knows of the files that a
// test looks at, and not of those that `go list` reads.
func dependOnSource() error {
	return filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "../.." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case filepath.Ext(name) == ".go" || d.Name() == "go.mod":
			_, err = os.Stat(name)
		}
		return err
	})
}

func load(t *testing.T) map[string]pkg {
	t.Helper()
	packages, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// own gives the packages of this module in order, without those under test/:
// whole-system tests stand outside of the house and may open every door.
func own(packages map[string]pkg) (list []pkg) {
	for _, p := range packages {
		if p.ours() && !isTestTree(p.name()) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return list
}

func isTestTree(name string) bool { return name == "test" || strings.HasPrefix(name, "test/") }

// roomOf finds the room of a package; a package below internal/sim belongs to
// the simulator, whatever its name.
func roomOf(name string) (room, bool) {
	if name != "internal/sim" && strings.HasPrefix(name, "internal/sim/") {
		name = "internal/sim"
	}
	r, ok := rooms[name]
	return r, ok
}

// inList tells whether name is in list, itself or as a part of the simulator.
func inList(list []string, name string) bool {
	return slices.Contains(list, name) ||
		strings.HasPrefix(name, "internal/sim/") && slices.Contains(list, "internal/sim")
}

// show names a package for people.
func show(name string) string { return path.Join(module, name) }
