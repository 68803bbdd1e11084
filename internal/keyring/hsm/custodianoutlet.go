package hsm

import (
	"joinery/internal/cmac"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
)

// outlet is a recipient's key in one token, by which root keys leave it.
type outlet struct {
	can      *capabilities
	wrapping exportfile.Wrapping
	public   handle
	// A file key for form seal, and the key of its MACs.
	fileKey, macKey handle
	header          *seal.Header
}

func openOutlet(s *session, can *capabilities, to exportfile.Recipient, w exportfile.Wrapping) (o *outlet, err error) {
	key, err := to.TransportKey()
	if err != nil {
		return nil, err
	}
	o = &outlet{can: can, wrapping: w}
	defer func() {
		if err != nil {
			o.close(s)
		}
	}()
	if o.public, err = s.api.CreateObject(s.handle, publicKey("joinery recipient", key, false)); err != nil {
		return nil, failed("bringing the recipient's key into the token", err)
	}
	if w.Form != exportfile.FormSeal {
		return o, nil
	}
	if o.fileKey, err = s.api.GenerateKey(s.handle, mechNewAES, ofLen(sessionKey(true, mayWrap, mayDerive), masterLen)); err != nil {
		return nil, failed("drawing a file key", err)
	}
	wrapped, err := s.api.WrapKey(s.handle, oaep(w.Alg), o.public, o.fileKey)
	if err != nil {
		return nil, failed("wrapping the file key", err)
	}
	o.header = &seal.Header{Format: seal.Format, KID: key.KID(), Alg: w.Alg, Wrap: seal.WrapA256KW, Key: wrapped}
	if o.macKey, err = s.derive(o.fileKey, seal.MACKeyBlocks(), can.macKey); err != nil {
		return nil, failed("deriving the key of MACs", err)
	}
	return o, nil
}

// wrap makes a device of its root keys, each of which open gives and which are gone
// afterwards.
func (o *outlet) wrap(s *session, about exportfile.Metadata, roots []keyring.RootSource, open func(keyring.RootSource) (handle, error)) (d exportfile.Device, err error) {
	d.Metadata = about
	for i, name := range about.Roots() {
		k, err := o.wrapOne(s, name, roots[i], open)
		if err != nil {
			return exportfile.Device{}, err
		}
		d.Keys = append(d.Keys, k)
	}
	if o.header == nil {
		return d, nil
	}
	d.Seal = o.header
	mac, err := s.cmac(o.macKey, d.Row().Item().MACInput())
	d.MAC = mac[:]
	return d, failed("making the MAC of a row", err)
}

func (o *outlet) wrapOne(s *session, name string, source keyring.RootSource, open func(keyring.RootSource) (handle, error)) (k exportfile.Key, err error) {
	root, err := open(source)
	if err != nil {
		return k, err
	}
	defer func() { _ = s.destroy(root) }()
	kcv, err := o.kcv(s, root)
	if err != nil {
		return k, failed("making a key check value", err)
	}
	var wrapped []byte
	if o.header != nil {
		wrapped, err = s.wrap(o.fileKey, root)
		if err == nil && len(wrapped) != lwcrypto.WrappedKeyLen {
			err = keyring.ErrIntegrity // not a key of 16 bytes
		}
	} else {
		wrapped, err = s.api.WrapKey(s.handle, oaep(o.wrapping.Alg), o.public, root)
	}
	return exportfile.NewKey(name, kcv, wrapped), failed("wrapping a root key for its recipient", err)
}

// kcv makes the key check value in the token.
func (o *outlet) kcv(s *session, root handle) (string, error) {
	zero := make([]byte, lwcrypto.BlockLen)
	var mac [lwcrypto.BlockLen]byte
	var err error
	if o.can.cmac {
		mac, err = s.cmac(root, zero)
	} else {
		mac, err = new(cmac.CMAC).Sum(ecb{s, root}, zero)
	}
	return exportfile.FormatKCV(mac), err
}

func (o *outlet) close(s *session) {
	for _, h := range []handle{o.public, o.fileKey, o.macKey} {
		if h != 0 {
			_ = s.destroy(h)
		}
	}
}
