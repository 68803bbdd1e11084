package hsm

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long ck;
typedef struct { ck type; void *value; ck len; } attribute;

// A CK_FUNCTION_LIST: two bytes of version, and then functions in an order that
// every version of PKCS #11 keeps.
typedef struct { unsigned char version[2]; void *functions[68]; } list;

enum { LOGIN = 18, CREATE_OBJECT = 20, GET_ATTRIBUTE_VALUE = 24, ENCRYPT = 30 };

static void *function_list(const char *path) {
	void *library = dlopen(path, RTLD_LAZY); // it is loaded already
	if (library == NULL) return NULL;
	ck (*get)(list **) = (ck (*)(list **))dlsym(library, "C_GetFunctionList");
	list *l = NULL;
	if (get == NULL || get(&l) != 0) return NULL;
	return l;
}

static ck call_login(void *l, ck session, ck user, void *pin, ck len) {
	return ((ck (*)(ck, ck, void *, ck))((list *)l)->functions[LOGIN])(session, user, pin, len);
}

static ck call_create(void *l, ck session, attribute *template, ck n, ck *object) {
	return ((ck (*)(ck, attribute *, ck, ck *))((list *)l)->functions[CREATE_OBJECT])(session, template, n, object);
}

static ck call_read(void *l, ck session, ck object, ck type, void *value, ck *len) {
	attribute a = { type, value, *len };
	ck rv = ((ck (*)(ck, ck, attribute *, ck))((list *)l)->functions[GET_ATTRIBUTE_VALUE])(session, object, &a, 1);
	*len = a.len;
	return rv;
}

static ck call_encrypt(void *l, ck session, void *in, ck n, void *out, ck *len) {
	return ((ck (*)(ck, void *, ck, void *, ck *))((list *)l)->functions[ENCRYPT])(session, in, n, out, len);
}
*/
import "C"

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// direct is the client's context with calls of its own for what carries secrets:
// the PIN, and the session keys of lower levels. The client copies these into the C
// library's memory and gives that back as it is; here the token reads from, and
// writes to, memory that is cleared.
type direct struct {
	*pkcs11.Ctx
	list unsafe.Pointer
}

var _ api = direct{}

// newDirect finds the functions of a library that the client has loaded.
func newDirect(ctx *pkcs11.Ctx, path string) (direct, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	list := C.function_list(name)
	if list == nil {
		return direct{}, fmt.Errorf("%w: %s has no list of functions", ErrModule, path)
	}
	return direct{ctx, list}, nil
}

// result gives the error of a return value.
func result(rv C.ck) error {
	if rv == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(rv)
}

// at gives where bytes are; there may be none. C may have memory only in which
// there is no pointer to Go's: pieces of larger things are copied before.
func at(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// LoginBytes is Login with a PIN that the caller clears.
func (d direct) LoginBytes(s pkcs11.SessionHandle, user uint, pin []byte) error {
	return result(C.call_login(d.list, C.ck(s), C.ck(user), at(pin), C.ck(len(pin))))
}

// CreateObject makes an object, whose value may be a key.
func (d direct) CreateObject(s pkcs11.SessionHandle, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	array := make([]C.attribute, len(t))
	for i, a := range t {
		array[i]._type = C.ck(a.Type)
		if len(a.Value) > 0 {
			pinner.Pin(unsafe.SliceData(a.Value))
			array[i].value, array[i].len = at(a.Value), C.ck(len(a.Value))
		}
	}
	var object C.ck
	rv := C.call_create(d.list, C.ck(s), unsafe.SliceData(array), C.ck(len(array)), &object)
	return pkcs11.ObjectHandle(object), result(rv)
}

// Value reads the value of a key into out, and gives its length.
func (d direct) Value(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, out []byte) (int, error) {
	value := make([]byte, len(out))
	defer clear(value)
	n := C.ck(len(value))
	rv := C.call_read(d.list, C.ck(s), C.ck(o), pkcs11.CKA_VALUE, at(value), &n)
	copy(out, value)
	return int(n), result(rv)
}

// EncryptInto ends an encryption whose result is at most as long as out.
func (d direct) EncryptInto(s pkcs11.SessionHandle, plain, out []byte) (int, error) {
	in, made := bytes.Clone(plain), make([]byte, len(out))
	defer clear(in)
	defer clear(made)
	n := C.ck(len(out))
	rv := C.call_encrypt(d.list, C.ck(s), at(in), C.ck(len(in)), at(made), &n)
	copy(out, made)
	return int(n), result(rv)
}
