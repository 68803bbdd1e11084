package attest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"slices"
	"strconv"

	"joinery"
	"joinery/internal/firmware"
)

// Products is what makers register.
type Products interface {
	Products(ctx context.Context, org joinery.OrgID) ([]joinery.Product, error)
	Product(ctx context.Context, id joinery.ProductID) (joinery.Product, error)
	AddProduct(ctx context.Context, p joinery.Product, a joinery.AuditEntry) error
	RemoveProduct(ctx context.Context, id joinery.ProductID, a joinery.AuditEntry) error
	ProductKeys
	Releases
}

// ProductKeys is what verifies releases and evidence.
type ProductKeys interface {
	ProductKeys(ctx context.Context, product joinery.ProductID, after joinery.ProductKeyID, limit int) ([]joinery.ProductKey, error)
	ReleaseKeys(ctx context.Context, product joinery.ProductID) ([]joinery.ProductKey, error)
	AddProductKey(ctx context.Context, k joinery.ProductKey, a joinery.AuditEntry) error
	RemoveProductKey(ctx context.Context, product joinery.ProductID, id joinery.ProductKeyID, a joinery.AuditEntry) error
}

// Releases is signed firmware.
type Releases interface {
	FirmwareReleases(ctx context.Context, product joinery.ProductID, after joinery.ReleaseID, limit int) ([]joinery.Release, error)
	// AddRelease gives the id, which is another where the release was there before and
	// went with its key.
	AddRelease(ctx context.Context, f joinery.Release, a joinery.AuditEntry) (joinery.ReleaseID, error)
	WithdrawRelease(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, a joinery.AuditEntry) error
	// LowerFloor is CodeConflict for a release that stands, or a counter that is not
	// below its own.
	LowerFloor(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, counter uint32, a joinery.AuditEntry) error
}

// maxRanges bounds the ranges of DevEUIs of one product.
const maxRanges = 200

// Products gives the products of the caller's organisation, to an operator who acts
// for none all.
func (s *Service) Products(ctx context.Context, caller joinery.Caller) ([]joinery.Product, error) {
	if caller.Org == 0 && !caller.Operator {
		return nil, notFound("organisation")
	}
	return s.store.Products(ctx, caller.Org)
}

// Product gives a product to who registered it.
func (s *Service) Product(ctx context.Context, caller joinery.Caller, id joinery.ProductID) (joinery.Product, error) {
	p, err := s.store.Product(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(p.Org) {
		return joinery.Product{}, notFound("product")
	}
	return p, err
}

// AddProduct registers a product of the caller's organisation.
func (s *Service) AddProduct(ctx context.Context, caller joinery.Caller, p joinery.Product) (joinery.Product, error) {
	invalid := func(text string) (joinery.Product, error) { return p, joinery.Errorf(joinery.CodeInvalid, "%s", text) }
	const names = "want letters, digits, dots, dashes, underscores and plus signs, 1 to 64"
	switch {
	case !firmware.ValidName(p.Name):
		return invalid("name: " + names)
	case !firmware.ValidName(p.Hardware):
		return invalid("hardware: " + names)
	case len(p.DevEUIs) == 0 || len(p.DevEUIs) > maxRanges:
		return invalid("devEUIs: want 1 to " + strconv.Itoa(maxRanges) + " ranges")
	case p.Boot != nil && (p.Boot.KeySlot > 15 || p.Boot.DigestSlot > 15 || p.Boot.Counter > 1 || p.Boot.KeySlot == p.Boot.DigestSlot):
		return invalid("boot: want two slots from 0 to 15, and counter 0 or 1")
	}
	for i, r := range p.DevEUIs {
		if r.First.Uint64() > r.Last.Uint64() {
			return invalid("devEUIs: the first is above the last")
		}
		if slices.ContainsFunc(p.DevEUIs[:i], r.Overlaps) {
			return invalid("devEUIs: two ranges overlap")
		}
	}
	var err error
	if p.Org, err = s.acting(ctx, caller); err != nil {
		return p, err
	}
	p.ID, p.CreatedAt = joinery.NewProductID(), s.time()
	detail := map[string]string{"product": p.ID.String(), "name": p.Name, "hardware": p.Hardware, "ranges": strconv.Itoa(len(p.DevEUIs))}
	if b := p.Boot; b != nil {
		detail["keySlot"], detail["digestSlot"], detail["counter"] = strconv.Itoa(int(b.KeySlot)), strconv.Itoa(int(b.DigestSlot)), strconv.Itoa(int(b.Counter))
	}
	return p, s.store.AddProduct(ctx, p, s.entry(caller, joinery.AuditProductAdded, p.Org, 0, detail))
}

// RemoveProduct takes a product away, with its keys and releases, and ends what its
// devices have shown above L1.
func (s *Service) RemoveProduct(ctx context.Context, caller joinery.Caller, id joinery.ProductID) error {
	p, err := s.Product(ctx, caller, id)
	if err != nil {
		return err
	}
	err = s.store.RemoveProduct(ctx, id, s.entry(caller, joinery.AuditProductRemoved, p.Org, 0, map[string]string{"product": id.String(), "name": p.Name}))
	return s.andEnd(ctx, err)
}

// Keys gives the keys of a product, after one; zero: from the first.
func (s *Service) Keys(ctx context.Context, caller joinery.Caller, product joinery.ProductID, after joinery.ProductKeyID, limit int) ([]joinery.ProductKey, error) {
	if _, err := s.Product(ctx, caller, product); err != nil {
		return nil, err
	}
	return s.store.ProductKeys(ctx, product, after, limit)
}

// AddKey registers a key of a product, or of one device that the organisation made.
func (s *Service) AddKey(ctx context.Context, caller joinery.Caller, k joinery.ProductKey) (joinery.ProductKey, error) {
	p, err := s.Product(ctx, caller, k.Product)
	if err != nil {
		return k, err
	}
	switch k.Use {
	case joinery.KeyForReleases:
		if k.Device != 0 {
			return k, joinery.Errorf(joinery.CodeInvalid, "device: releases are of a product, not of one device")
		}
	case joinery.KeyForTokens:
	case joinery.KeyForBoot:
		if k.Device == 0 {
			return k, joinery.Errorf(joinery.CodeInvalid, "device: each element has a key of its own; say whose this is")
		}
	default:
		return k, joinery.Errorf(joinery.CodeInvalid, "use: want release, token or boot")
	}
	key, err := parseKey(k.Public)
	if err != nil {
		return k, err
	}
	if k.Public, err = x509.MarshalPKIXPublicKey(key); err != nil { // one form, however it came
		return k, err
	}
	k.ID, k.CreatedAt = joinery.NewProductKeyID(), s.time()
	sum := sha256.Sum256(k.Public)
	return k, s.store.AddProductKey(ctx, k, s.entry(caller, joinery.AuditProductKeyAdded, p.Org, k.Device, map[string]string{
		"product": p.ID.String(), "key": k.ID.String(), "use": string(k.Use), "sha256": hex.EncodeToString(sum[:]),
	}))
}

// RemoveKey takes a key of a product away, and the releases that it signed. What rests
// on them ends.
func (s *Service) RemoveKey(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ProductKeyID) error {
	p, err := s.Product(ctx, caller, product)
	if err != nil {
		return err
	}
	err = s.store.RemoveProductKey(ctx, product, id, s.entry(caller, joinery.AuditProductKeyRemoved, p.Org, 0, map[string]string{
		"product": p.ID.String(), "key": id.String(),
	}))
	return s.andEnd(ctx, err)
}

// Releases gives the releases of a product, after one; zero: from the first.
func (s *Service) Releases(ctx context.Context, caller joinery.Caller, product joinery.ProductID, after joinery.ReleaseID, limit int) ([]joinery.Release, error) {
	if _, err := s.Product(ctx, caller, product); err != nil {
		return nil, err
	}
	return s.store.FirmwareReleases(ctx, product, after, limit)
}

// AddRelease takes a signed statement about firmware of a product.
func (s *Service) AddRelease(ctx context.Context, caller joinery.Caller, product joinery.ProductID, statement []byte) (f joinery.Release, err error) {
	p, err := s.Product(ctx, caller, product)
	if err != nil {
		return f, err
	}
	st, err := firmware.Parse(statement)
	if err != nil {
		return f, joinery.Errorf(joinery.CodeInvalid, "statement: %s", err.Error())
	}
	if st.Product != p.Name || st.Hardware != p.Hardware {
		return f, joinery.Errorf(joinery.CodeInvalid, "statement: it is about another product or hardware than %s on %s", p.Name, p.Hardware)
	}
	keys, err := s.store.ReleaseKeys(ctx, product)
	if err != nil {
		return f, err
	}
	i := slices.IndexFunc(keys, func(k joinery.ProductKey) bool {
		key, err := parseKey(k.Public)
		return err == nil && st.Verify(key) == nil
	})
	if i < 0 {
		return f, joinery.Errorf(joinery.CodeInvalid, "statement: no key that is registered for releases of %s signed it as it is: register the maker's with 'joinctl product key add %s --use release --public FILE', or sign it again", p.Name, p.Name)
	}
	f = joinery.Release{
		ID: joinery.NewReleaseID(), Product: product, Version: st.Version, Digest: st.Digest, Counter: st.Counter,
		Statement: statement, Key: keys[i].ID, At: s.time(),
	}
	f.ID, err = s.store.AddRelease(ctx, f, s.entry(caller, joinery.AuditReleaseAdded, p.Org, 0, map[string]string{
		"product": p.ID.String(), "version": f.Version, "digest": hex.EncodeToString(f.Digest[:]),
		"counter": strconv.FormatUint(uint64(f.Counter), 10), "key": f.Key.String(),
	}))
	return f, err
}

// WithdrawRelease has evidence of a release prove nothing any more, and ends what rests
// on it.
func (s *Service) WithdrawRelease(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ReleaseID) error {
	p, err := s.Product(ctx, caller, product)
	if err != nil {
		return err
	}
	err = s.store.WithdrawRelease(ctx, product, id, s.entry(caller, joinery.AuditReleaseWithdrawn, p.Org, 0, map[string]string{
		"product": p.ID.String(), "release": id.String(),
	}))
	return s.andEnd(ctx, err)
}

// LowerFloor lets devices that have shown a release which was withdrawn go down to an
// older one: without it nothing below that release is accepted of them.
func (s *Service) LowerFloor(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ReleaseID, counter uint32) error {
	p, err := s.Product(ctx, caller, product)
	if err != nil {
		return err
	}
	return s.store.LowerFloor(ctx, product, id, counter, s.entry(caller, joinery.AuditFloorLowered, p.Org, 0, map[string]string{
		"product": p.ID.String(), "release": id.String(), "counter": strconv.FormatUint(uint64(counter), 10),
	}))
}

// andEnd ends what rests on what was just taken back. It is done with before the maker
// has the answer, but for the devices of a fleet so large that Run goes on with it; what
// fails here Run does, too.
func (s *Service) andEnd(ctx context.Context, err error) error {
	if err == nil {
		if failed := s.endWithdrawn(context.WithoutCancel(ctx)); failed != nil {
			s.log.Warn("what rests on what a maker took back ends later", slog.Any("error", failed))
		}
	}
	return err
}
