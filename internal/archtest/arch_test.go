package archtest

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryPackageHasItsRoom(t *testing.T) {
	packages := load(t)
	for _, p := range own(packages) {
		if _, ok := roomOf(p.name()); !ok {
			t.Errorf("%s is in no table: add it to rooms in internal/archtest/table_test.go with its floor and a line on why it must be a package of its own", p.ImportPath)
		}
	}
	for name, r := range rooms {
		if _, ok := packages[strings.TrimSuffix(module+"/"+name, "/")]; !ok {
			t.Errorf("rooms lists %s, and there is no such package: remove the line", show(name))
		}
		if r.why == "" {
			t.Errorf("rooms says nothing about why %s is a package", show(name))
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range own(load(t)) {
		from, ok := roomOf(p.name())
		if !ok {
			continue // TestEveryPackageHasItsRoom tells
		}
		for _, imported := range p.Imports {
			to, ok := roomOf(inModule(imported))
			if !isOurs(imported) || !ok {
				if isOurs(imported) && isTestTree(inModule(imported)) {
					t.Errorf("%s imports %s: nothing imports the whole-system tests", p.ImportPath, imported)
				}
				continue
			}
			if !mayImport(p.name(), from, inModule(imported), to) {
				t.Errorf("%s (floor %d) must not import %s (floor %d): imports go down, and sideways only where the table says so", p.ImportPath, from.floor, imported, to.floor)
			}
		}
	}
}

// mayImport is the rule of the floors.
func mayImport(fromName string, from room, toName string, to room) bool {
	switch {
	case slices.Contains(sideways[fromName], toName):
		return true
	case to.floor == apart:
		// Programs on top may link what stands apart (importers says which);
		// within the simulator packages may use each other.
		return from.floor == top || from.floor == apart && strings.HasPrefix(toName, "internal/sim")
	case from.floor == apart:
		return to.floor == ground
	default:
		return to.floor < from.floor
	}
}

func TestGuardedImports(t *testing.T) {
	packages := load(t)
	for guarded, allowed := range importers {
		target := importPath(packages, guarded)
		for _, p := range own(packages) {
			if slices.Contains(p.Imports, target) && !inList(allowed, p.name()) {
				t.Errorf("%s must not import %s: only %s may", p.ImportPath, target, strings.Join(allowed, ", "))
			}
		}
		for _, name := range allowed {
			if _, ok := roomOf(name); !ok {
				t.Errorf("importers of %s lists %s, which is no package", guarded, name)
			}
		}
	}
}

// What a program links, through everything that it imports.
func TestProgramsLinkOnlyWhatTheyMay(t *testing.T) {
	packages := load(t)
	for program, forbidden := range map[string]func(name string) bool{
		// People's machines: no custody, no state.
		"cmd/joinctl": func(name string) bool {
			return under(name, "internal/keyring") || under(name, "internal/store") ||
				under(name, "internal/sim") || isSQLite(name)
		},
		// A second opinion: nothing of the server's but the ground floor.
		"cmd/joinsim": func(name string) bool {
			r, known := roomOf(name)
			return known && r.floor != ground && r.floor != apart && name != "cmd/joinsim" || isSQLite(name)
		},
		"cmd/joinery": func(name string) bool {
			return under(name, "internal/sim") || under(name, "internal/keyring/hsm")
		},
		// It has keys, and as little else as can be: no state, no door, no network.
		"cmd/joinery-hsm": func(name string) bool {
			r, known := roomOf(name)
			return under(name, "internal/store") || under(name, "internal/sim") || under(name, "internal/keyring/soft") ||
				known && r.floor >= rules && name != "cmd/joinery-hsm" || name == "net/http" || isSQLite(name)
		},
		"client": func(name string) bool {
			return under(name, "internal/keyring") || under(name, "internal/store") || isSQLite(name)
		},
	} {
		p, ok := packages[module+"/"+program]
		if !ok {
			t.Errorf("there is no %s", program)
			continue
		}
		for _, dep := range p.Deps {
			if dep == "net/http/pprof" {
				t.Errorf("%s must not link %s: profiles show memory, and it answers on any mux that is the default", program, dep)
			}
			if forbidden(inModule(dep)) {
				t.Errorf("%s must not link %s: find who imports it with `go mod why` or `go list -deps`", program, dep)
			}
			for _, name := range []string{"internal/keyring/keyringtest", "internal/store/storetest", "internal/archtest"} {
				if inModule(dep) == name {
					t.Errorf("%s links %s, which is for tests only", program, dep)
				}
			}
		}
	}
}

func under(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func isSQLite(name string) bool { return strings.Contains(name, "sqlite") }

// All programs but the one that opens hardware tokens build without a C compiler. The standard library falls back to
// Go where cgo is off; any other package with C in it would not.
func TestNoCgo(t *testing.T) {
	packages := load(t)
	for _, p := range own(packages) {
		if !strings.HasPrefix(p.name(), "cmd/") || p.name() == "cmd/joinery-hsm" {
			continue
		}
		for _, dep := range append([]string{p.ImportPath}, p.Deps...) {
			if d := packages[dep]; !d.Standard && len(d.CgoFiles) > 0 {
				t.Errorf("%s links %s, which needs cgo", p.ImportPath, dep)
			}
		}
	}
}

// The public packages are for others to import: they bring little with them.
func TestModules(t *testing.T) {
	packages := load(t)
	used := map[string]bool{}
	for _, p := range own(packages) {
		for _, imported := range p.Imports {
			m := packages[imported].Module
			if m == nil || m.Main {
				continue
			}
			allowed, ok := modules[m.Path]
			switch {
			case !ok:
				t.Errorf("%s imports %s of module %s, which is in no table: a new dependency is a decision; add it to modules in internal/archtest/modules_test.go", p.ImportPath, imported, m.Path)
			case !inList(allowed, p.name()):
				t.Errorf("%s must not import module %s: only %s may", p.ImportPath, m.Path, strings.Join(allowed, ", "))
			}
			used[m.Path] = true
		}
	}
	for m := range modules {
		if !used[m] {
			t.Errorf("modules lists %s, which nothing imports: remove the line", m)
		}
	}
	for _, p := range packages {
		if !p.ours() {
			continue
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			m := packages[imported].Module
			if m == nil || m.Main || slices.Contains(testModules, m.Path) || modules[m.Path] != nil {
				continue
			}
			t.Errorf("the tests of %s import module %s, which is in no table: add it to testModules", p.ImportPath, m.Path)
		}
	}
}
