package hsm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// A key that is replaced has generations in the token: the first has the key's own
// label, such as joinery.join-kek, each later one its number behind a dot, such as
// joinery.join-kek.2. They are without gaps; the highest is the newest. The old ones
// go from the lowest on.

// generationLabel gives the label of a generation.
func generationLabel(base string, number uint32) string {
	if number <= 1 {
		return base
	}
	return base + "." + strconv.FormatUint(uint64(number), 10)
}

// generationOf reads the number in the label of a key: 0 where it is another key's.
// A label that only looks like a generation's is ErrObject: it would be passed by.
func generationOf(base, label string) (uint32, error) {
	rest, is := strings.CutPrefix(label, base)
	switch {
	case !is:
		return 0, nil
	case rest == "":
		return 1, nil
	case rest[0] != '.':
		return 0, nil // another key, whose label is longer
	}
	n, err := strconv.ParseUint(rest[1:], 10, 32)
	if err != nil || n < 2 || strconv.FormatUint(n, 10) != rest[1:] {
		return 0, fmt.Errorf("%w: %s is no generation of %s", ErrObject, label, base)
	}
	return uint32(n), nil
}

// generation is one generation of a key, as the token has it.
type generation struct {
	number uint32
	label  string
	// handles are its objects, of the classes that were asked for and in their
	// order; 0 where one is missing.
	handles []handle
}

func (g generation) whole() bool { return !slices.Contains(g.handles, 0) }

// labelled lists the objects of a class whose labels are those of a key's
// generations. There may be objects of others, which need not have a label.
func (s *session) labelled(class uint, base string) (map[uint32][]handle, error) {
	list, err := s.find(class, "")
	if err != nil {
		return nil, err
	}
	found := map[uint32][]handle{}
	for _, h := range list {
		label, err := s.attribute(h, pkcs11.CKA_LABEL)
		if rv, ok := answer(err); ok && !lost[rv] {
			continue // it has none
		}
		if err != nil {
			return nil, failed("reading labels", err)
		}
		number, err := generationOf(base, string(label))
		if err != nil {
			return nil, err
		}
		if number != 0 {
			found[number] = append(found[number], h)
		}
	}
	return found, nil
}

// everyGeneration gives all generations of a key in rising order, those of which a
// half is missing as well. One that is there twice is ErrObject.
func (s *session) everyGeneration(base string, classes ...uint) (list []generation, err error) {
	byNumber := map[uint32]*generation{}
	for i, class := range classes {
		found, err := s.labelled(class, base)
		if err != nil {
			return nil, err
		}
		for number, handles := range found {
			if len(handles) > 1 {
				return nil, fmt.Errorf("%w: there are %d objects %s; want 1", ErrObject, len(handles), generationLabel(base, number))
			}
			g := byNumber[number]
			if g == nil {
				g = &generation{number, generationLabel(base, number), make([]handle, len(classes))}
				byNumber[number] = g
			}
			g.handles[i] = handles[0]
		}
	}
	for _, g := range byNumber {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b generation) int { return cmp.Compare(a.number, b.number) })
	return list, nil
}

// generations gives the generations of a key that can be used, in rising order:
// none may be missing between two, and none that is secret may be readable. Half a
// pair that is the oldest or the newest of several is what a step left that was cut
// off, retiring or making it; it is passed by, and the same step clears it away.
func (s *session) generations(base string, classes ...uint) ([]generation, error) {
	list, err := s.everyGeneration(base, classes...)
	if err != nil {
		return nil, err
	}
	all := list
	for len(list) > 1 && !list[0].whole() {
		list = list[1:]
	}
	if n := len(list) - 1; n > 0 && !list[n].whole() {
		list = list[:n]
	}
	for i, g := range list {
		if !g.whole() {
			return nil, fmt.Errorf("%w: of the pair %s only one half is there", ErrObject, g.label)
		}
		if i > 0 && g.number != list[i-1].number+1 {
			return nil, fmt.Errorf("%w: %s is there, and %s is not", ErrObject, g.label, generationLabel(base, list[i-1].number+1))
		}
		for j, class := range classes {
			if class == pkcs11.CKO_PUBLIC_KEY {
				continue
			}
			if err := checkHidden(s, g.handles[j], g.label); err != nil {
				return nil, err
			}
		}
	}
	if len(list) == 0 && len(all) > 0 {
		return nil, fmt.Errorf("%w: of the pair %s only one half is there", ErrObject, all[0].label)
	}
	return list, nil
}

// births are the attributes in which a token tells that a key was made in it and could
// never leave. Some tokens tell it of no key (NSS).
func (p *prober) births() (told []uint) {
	p.tries(func() error {
		h, err := p.s.api.GenerateKey(p.s.handle, mechNewAES, ofLen(sessionKey(false), masterLen))
		if err != nil {
			return err
		}
		defer func() { _ = p.s.destroy(h) }()
		for _, typ := range []uint{pkcs11.CKA_LOCAL, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_NEVER_EXTRACTABLE} {
			if is, err := p.s.is(h, typ); err == nil && is {
				told = append(told, typ)
			}
		}
		return nil
	})
	return told
}

// checkBirths refuses a join KEK or a transport key that was made elsewhere, or could
// leave once, where the token tells: somebody knows it, and whoever puts it beside the
// true one as the next generation would have all that comes in later sealed to him.
func (o *objects) checkBirths(s *session, told []uint) error {
	check := func(h handle, label string) error {
		for _, typ := range told {
			so, err := s.is(h, typ)
			if err != nil {
				return failed(label, err)
			}
			if !so {
				return fmt.Errorf("%w: %s was not made in the token, or could be read there once", ErrObject, label)
			}
		}
		return nil
	}
	for _, g := range o.joinKEKs {
		if err := check(g.handles[0], g.label); err != nil {
			return err
		}
	}
	for _, p := range o.transports {
		if err := check(p.private, generationLabel(labelTransport, p.number)); err != nil {
			return err
		}
	}
	return nil
}

// someGenerations is generations of a key that must be there.
func (s *session) someGenerations(base string, classes ...uint) ([]generation, error) {
	list, err := s.generations(base, classes...)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%w: there are 0 objects %s; want 1", ErrObject, base)
	}
	return list, err
}

// pair is one generation of an RSA key: of a transport key with both halves, of a
// custody key with those that its token has.
type pair struct {
	number          uint32
	public, private handle
	key             seal.PublicKey
}

// publicHalves and bothHalves find the generations of an RSA key, at least one.
func publicHalves(s *session, base string) ([]pair, error) {
	list, err := s.someGenerations(base, pkcs11.CKO_PUBLIC_KEY)
	return readPairs(s, list, err)
}

func bothHalves(s *session, base string) ([]pair, error) {
	list, err := s.someGenerations(base, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY)
	return readPairs(s, list, err)
}

func readPairs(s *session, list []generation, err error) (pairs []pair, _ error) {
	for _, g := range list {
		p := pair{number: g.number, public: g.handles[0]}
		if len(g.handles) > 1 {
			p.private = g.handles[1]
		}
		if p.key, err = readPublic(s, p.public); err != nil {
			return nil, failed(g.label, err)
		}
		pairs = append(pairs, p)
	}
	return pairs, err
}

// noPrivateHalf makes sure that the custody key's private halves are kept elsewhere.
func noPrivateHalf(s *session) error {
	list, err := s.labelled(pkcs11.CKO_PRIVATE_KEY, labelCustody)
	if err == nil && len(list) > 0 {
		return fmt.Errorf("%w: the private half of %s is in the token of the Join Server; it belongs to another role, with its own PIN", ErrObject, labelCustody)
	}
	return err
}

// joinKEK finds the join KEK of a generation.
func (o *objects) joinKEK(number uint32) (handle, bool) {
	for _, g := range o.joinKEKs {
		if g.number == number {
			return g.handles[0], true
		}
	}
	return 0, false
}

// newest generations seal.
func (o *objects) newestJoinKEK() generation { return o.joinKEKs[len(o.joinKEKs)-1] }
func (o *objects) newestTransport() pair     { return o.transports[len(o.transports)-1] }
func (o *objects) newestCustody() pair       { return o.custodies[len(o.custodies)-1] }

// generations describes them.
func (o *objects) generations() (g keyring.Generations) {
	for _, k := range o.joinKEKs {
		g.JoinKEK = append(g.JoinKEK, k.number)
	}
	for _, p := range o.transports {
		g.Transport = append(g.Transport, p.key.KID())
	}
	g.Custody, g.Exports = o.newestCustody().number, o.signers
	return g
}

// errOtherKeys: a token that was opened again is not the one that it was.
var errOtherKeys = fmt.Errorf("%w: it has other keys than before", ErrNoToken)

// keepTo leaves what came into the token after before was found out of o: whoever was
// told of generations once is served with those until a token is opened for him anew.
// Old ones may have gone meanwhile, the newest must be there.
func (o *objects) keepTo(before *objects) error {
	o.joinKEKs = slices.DeleteFunc(o.joinKEKs, func(g generation) bool { return g.number > before.newestJoinKEK().number })
	later := func(than pair) func(pair) bool { return func(p pair) bool { return p.number > than.number } }
	o.transports = slices.DeleteFunc(o.transports, later(before.newestTransport()))
	o.custodies = slices.DeleteFunc(o.custodies, later(before.newestCustody()))
	if len(o.joinKEKs) == 0 || len(o.transports) == 0 || len(o.custodies) == 0 ||
		o.newestJoinKEK().number != before.newestJoinKEK().number ||
		o.newestTransport().key.KID() != before.newestTransport().key.KID() ||
		o.newestCustody().key.KID() != before.newestCustody().key.KID() {
		return errOtherKeys
	}
	return nil
}

// ErrRetire says that there is one generation only, which stays.
var ErrRetire = errors.New("nothing can be retired")

// classesOf are those of a key that has generations, by its label.
var classesOf = map[string][]uint{
	labelJoinKEK:   {pkcs11.CKO_SECRET_KEY},
	labelTransport: {pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY},
	labelCustody:   {pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY},
	labelAudit:     {pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY},
	labelExport:    {pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY},
}

// clearNewest destroys what is left of a newest generation that was never made
// whole, so that nobody was told of it.
func (a *admin) clearNewest(base string) error {
	list, err := a.s.everyGeneration(base, classesOf[base]...)
	if err != nil || len(list) < 2 || list[len(list)-1].whole() {
		return err
	}
	return a.destroyAll(list[len(list)-1])
}

// destroyAll destroys the objects of a generation: first what is secret.
func (a *admin) destroyAll(g generation) error {
	for _, h := range slices.Backward(g.handles) {
		if h == 0 {
			continue
		}
		if err := a.s.destroy(h); err != nil {
			return failed("destroying "+g.label, err)
		}
	}
	return nil
}

// retire destroys every generation of a key but the newest, from the lowest on.
func (a *admin) retire(base string, classes ...uint) error {
	whole, err := a.s.someGenerations(base, classes...)
	if err != nil {
		return err
	}
	newest := whole[len(whole)-1].number
	all, err := a.s.everyGeneration(base, classes...)
	if err != nil {
		return err
	}
	if base == labelExport {
		all = secretHalves(all) // by the public ones old files are verified
	}
	if all[0].number >= newest {
		return fmt.Errorf("%w: there is one %s only; make the next one first", ErrRetire, base)
	}
	for _, g := range all {
		if g.number >= newest {
			break
		}
		if err := a.destroyAll(g); err != nil {
			return err
		}
	}
	return nil
}

// secretHalves leaves public halves out of pairs.
func secretHalves(list []generation) (out []generation) {
	for _, g := range list {
		if g.handles[1] != 0 {
			out = append(out, generation{g.number, g.label, g.handles[1:]})
		}
	}
	return out
}

// following is the number after that.
func following(number uint32) (uint32, error) {
	if number == math.MaxUint32 {
		return 0, fmt.Errorf("%w: there are no numbers left for generations", ErrObject)
	}
	return number + 1, nil
}
