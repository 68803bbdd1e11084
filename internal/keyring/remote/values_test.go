package remote

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// leftOut names the fields that do not travel: nothing in the keyring looks at
// them. A field that is neither here nor comes through fails TestValues.
var leftOut = map[string]bool{
	"KeySet.Version": true, "KeySet.Nonces": true, "KeySet.Disclosed": true,
	"Activation.At": true, "Activation.Owner": true, "Activation.Peer": true, "Activation.FrameHash": true,
	"Activation.NSID": true, "Activation.NSKEK": true, "Activation.ASKEK": true,
	"Activation.SendSessionKeyID": true, "Activation.SessionKeyID": true, "Activation.ASID": true, "Activation.BindingEpoch": true,
	"KEK.CreatedAt": true, "KEK.Retired": true, "KEK.Claimed": true,
	"SealedRow.Line": true,
}

// filled gives a T whose every field that travels has a value of its own.
func filled[T any](t *testing.T) (v T) {
	t.Helper()
	n := uint64(0)
	var fill func(v reflect.Value, name string)
	fill = func(v reflect.Value, name string) {
		if leftOut[name] {
			return
		}
		n++
		switch k := v.Kind(); {
		case v.Type() == reflect.TypeFor[lorawan.CFList]():
			list, err := lorawan.ParseCFList([]byte("0123456789abcdef"))
			if err != nil {
				t.Fatal(err)
			}
			v.Set(reflect.ValueOf(list))
		case v.Type() == reflect.TypeFor[error]():
			v.Set(reflect.ValueOf(&keyring.ErrTransport).Elem())
		case k == reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i), v.Type().Name()+"."+v.Type().Field(i).Name)
			}
		case k == reflect.Array || k == reflect.Slice:
			if k == reflect.Slice {
				v.Set(reflect.MakeSlice(v.Type(), 3, 3))
			}
			for i := range v.Len() {
				fill(v.Index(i), "")
			}
		case k == reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), "")
		case k == reflect.Bool:
			v.SetBool(true)
		case k == reflect.String:
			v.SetString(string(rune('a' + n)))
		case v.CanInt():
			v.SetInt(int64(n))
		case v.CanUint():
			v.SetUint(n)
		default:
			t.Fatalf("%s: a field of kind %s is unknown here", name, k)
		}
	}
	fill(reflect.ValueOf(&v).Elem(), "")
	return v
}

// through sends a value there and looks at what comes out.
func through[T any](t *testing.T, encode func(*encoder, *T), decode func(*decoder, *T)) {
	t.Helper()
	for _, v := range []T{filled[T](t), *new(T)} {
		var e encoder
		want := v
		encode(&e, &v)
		d := decoder{b: e.b}
		var got T
		decode(&d, &got)
		if err := d.done(); err != nil {
			t.Errorf("%T: %v", v, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(lorawan.CFList{}), cmpopts.EquateErrors()); diff != "" {
			t.Errorf("%T came out otherwise (-in +out):\n%s", v, diff)
		}
		for n := range e.b { // cut short it is malformed, and no panic
			d := decoder{b: e.b[:n]}
			decode(&d, new(T))
			if d.done() == nil {
				t.Errorf("%T cut to %d of %d bytes is taken", v, n, len(e.b))
			}
		}
	}
}

// Every field comes through, or is known not to.
func TestValues(t *testing.T) {
	through(t, func(e *encoder, v *joinery.KeySet) { e.keySet(v, true) }, func(d *decoder, v *joinery.KeySet) { d.keySet(v, true) })
	through(t, (*encoder).activation, (*decoder).activation)
	through(t, (*encoder).kek, (*decoder).kek)
	through(t, (*encoder).header, func(d *decoder, v *seal.Header) { *v = d.header() })
	through(t, (*encoder).sealedKEK, func(d *decoder, v *seal.SealedKEK) { *v = d.sealedKEK() })
	through(t, (*encoder).rootsIn, (*decoder).rootsIn)
	through(t, func(e *encoder, v *keyring.RootsOut) { e.rootsOut(v) }, (*decoder).rootsOut)
	leftOut["SealedRoot.Custody"] = true
	defer delete(leftOut, "SealedRoot.Custody")
	through(t, (*encoder).acceptRequest, (*decoder).acceptRequest)
	var e encoder
	e.activation(&joinery.Activation{})
	if len(e.b) != activationLen {
		t.Errorf("the shortest activation has %d bytes, not %d", len(e.b), activationLen)
	}
}

// A session key is cleared where it was when it has been written.
func TestAnswerIsCleared(t *testing.T) {
	a := filled[keyring.Answer](t)
	var want keyring.Answer
	want.PHYPayload = append(want.PHYPayload, a.PHYPayload...)
	for i, v := range envelopes(&a) {
		*envelopes(&want)[i] = keyring.Envelope{KEKLabel: v.KEKLabel, AESKey: append([]byte(nil), v.AESKey...)}
	}
	var e encoder
	e.answer(&a)
	for _, v := range envelopes(&a) {
		for _, b := range v.AESKey {
			if b != 0 {
				t.Fatal("a session key is still there")
			}
		}
	}
	d := decoder{b: e.b}
	var got keyring.Answer
	d.answer(&got, want.NwkSKey.KEKLabel)
	if err := d.done(); err != nil {
		t.Error(err)
	}
	clear(e.b) // the answer has memory of its own
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
