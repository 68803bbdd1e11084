package archtest

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
)

// signatureLeaks names the ways out of a function through which a key could
// come: its results, what it hands to a callback, and what it writes.
func signatureLeaks(name string, sig *types.Signature) (places []string) {
	for i := range sig.Results().Len() {
		if canHoldKey(sig.Results().At(i).Type()) {
			places = append(places, fmt.Sprintf("%s result %d", name, i))
		}
	}
	for i := range sig.Params().Len() {
		param := sig.Params().At(i)
		switch typ := param.Type().Underlying().(type) {
		case *types.Signature:
			for j := range typ.Params().Len() {
				if canHoldKey(typ.Params().At(j).Type()) {
					places = append(places, fmt.Sprintf("%s callback %s", name, param.Name()))
				}
			}
		case *types.Interface:
			if isWriter(typ) {
				places = append(places, fmt.Sprintf("%s writer %s", name, param.Name()))
			}
		}
	}
	return places
}

// valueLeaks names a field or variable whose value could be a key.
func valueLeaks(name string, t types.Type) []string {
	if sig, ok := t.Underlying().(*types.Signature); ok {
		return signatureLeaks(name, sig)
	}
	if canHoldKey(t) {
		return []string{name}
	}
	return nil
}

// canHoldKey tells whether a value of type t could be or contain a key that its
// holder can read. A struct of the packages looked at is judged by its exported
// fields, each in its own line; what others cannot read does not count.
func canHoldKey(t types.Type) bool {
	if named, ok := types.Unalias(t).(*types.Named); ok && named.Obj().Pkg() != nil {
		switch verdict, known := verdictOn(named.Obj()); {
		case known:
			return verdict
		case isStruct(named):
			return false
		case types.IsInterface(named):
			return false
		}
	}
	switch t := t.Underlying().(type) {
	case *types.Pointer:
		return canHoldKey(t.Elem())
	case *types.Slice:
		return isByte(t.Elem()) || canHoldKey(t.Elem())
	case *types.Array:
		return isByte(t.Elem()) && t.Len() >= 16 || canHoldKey(t.Elem())
	case *types.Map:
		return canHoldKey(t.Key()) || canHoldKey(t.Elem())
	case *types.Chan:
		return canHoldKey(t.Elem())
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() && canHoldKey(f.Type()) {
				return true
			}
		}
	case *types.Interface:
		return t.NumMethods() == 0 // any
	}
	return false
}

// verdictOn knows the types of other packages that hold keys, and our own that
// hold ciphertext or public material although they are made of bytes.
func verdictOn(obj *types.TypeName) (holds, known bool) {
	switch importPath := obj.Pkg().Path(); {
	case importPath == module && obj.Name() == "Sealed":
		return false, true // ciphertext by definition
	case importPath == module+"/internal/seal":
		return !slices.Contains([]string{"PublicKey", "Header", "SealedRow", "SealedKEK"}, obj.Name()), true
	case importPath == module+"/internal/exportfile": // ciphertext and public keys, but for what opens it
		return slices.Contains([]string{"OpenedKey", "Opener", "PrivateKey"}, obj.Name()), true
	case importPath == module+"/internal/secret":
		return obj.Name() != "Protection", true
	case importPath == "crypto/x509":
		return false, true
	case strings.HasPrefix(importPath, "crypto/") || importPath == "crypto":
		return true, true
	}
	return false, false
}

func isStruct(t types.Type) bool {
	_, ok := t.Underlying().(*types.Struct)
	return ok
}

func isByte(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.Uint8
}

// isWriter tells whether an interface has a method Write.
func isWriter(i *types.Interface) bool {
	for m := range i.Methods() {
		if m.Name() == "Write" {
			return true
		}
	}
	return false
}
