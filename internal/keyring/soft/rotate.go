package soft

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// The functions of this file put a new generation of a storage key beside the old
// one in a server's key file, and take old ones out once nothing needs them. A
// running server has them when it reads its key file anew.

// Errors of rotation.
var (
	// ErrNotServer: the key file is a factory's, which has no storage keys.
	ErrNotServer = errors.New("this key file is not a server's")
	// ErrInUse: the generation is the newest, or there is none of that name.
	ErrInUse = errors.New("this generation cannot be retired")
)

// generationsOfJoinKEK gives all that there are, in rising order.
func (c *contents) generationsOfJoinKEK() []storedKEK {
	list := c.JoinKEKs
	if len(c.JoinKEK) > 0 || len(list) == 0 { // a file with none is refused when the key is used
		list = append([]storedKEK{{1, c.JoinKEK}}, list...)
	}
	return list
}

// changeServer changes the key file of a server; what comes of it is of the format
// for rotated keys.
func changeServer(keyFile string, u Unlock, f func(*contents) error) error {
	return change(keyFile, u, func(c *contents) error {
		if c.Format != formatServer && c.Format != formatRotated {
			return ErrNotServer
		}
		if err := f(c); err != nil {
			return err
		}
		c.Format = formatRotated
		return nil
	})
}

// generations describes what a key file holds.
func (c *contents) generations() (g keyring.Generations, err error) {
	for _, k := range c.generationsOfJoinKEK() {
		g.JoinKEK = append(g.JoinKEK, k.Generation)
	}
	g.Custody = max(c.CustodyGeneration, 1)
	for _, k := range append(slices.Clone(c.OldTransports), storedTransport{nil, c.TransportPublic}) {
		p, err := seal.ParsePublicKeyDER(k.Public)
		if err != nil {
			return g, fmt.Errorf("%w: transport key", ErrDamaged)
		}
		g.Transport = append(g.Transport, p.KID())
	}
	g.Exports, err = c.signers()
	return g, err
}

// exportKeys gives the keys that sign exports or once did, the newest last; none of a
// file from a version without exports.
func (c *contents) exportKeys() []storedTransport {
	if len(c.ExportPublic) == 0 {
		return nil
	}
	return append(slices.Clone(c.OldExports), storedTransport{c.Export, c.ExportPublic})
}

// signers gives their public halves.
func (c *contents) signers() (list []exportfile.Signer, err error) {
	for _, k := range c.exportKeys() {
		s, err := exportfile.ParseSignerDER(k.Public)
		if err != nil {
			return nil, fmt.Errorf("%w: key of exports", ErrDamaged)
		}
		list = append(list, s)
	}
	return list, nil
}

// Generations tells which generations of storage keys a server's key file has.
func Generations(keyFile string, u Unlock) (g keyring.Generations, err error) {
	err = look(keyFile, u, func(c *contents) error {
		if c.Format == formatFactory {
			return ErrNotServer
		}
		g, err = c.generations()
		return err
	})
	return g, err
}

// NewJoinKEK draws the next generation of the join KEK.
func NewJoinKEK(keyFile string, u Unlock) (g keyring.Generations, err error) {
	err = changeServer(keyFile, u, func(c *contents) error {
		last := slices.MaxFunc(c.generationsOfJoinKEK(), func(a, b storedKEK) int { return int(a.Generation) - int(b.Generation) })
		c.JoinKEKs = append(c.JoinKEKs, storedKEK{last.Generation + 1, randomKey()})
		g, err = c.generations()
		return err
	})
	return g, err
}

// RetireJoinKEKs takes out every generation of the join KEK but the newest. What is
// sealed under them does not open any more: see to it that nothing is.
func RetireJoinKEKs(keyFile string, u Unlock) (g keyring.Generations, err error) {
	err = changeServer(keyFile, u, func(c *contents) error {
		all := c.generationsOfJoinKEK()
		if len(all) < 2 {
			return fmt.Errorf("%w: there is one join KEK only; draw the next one first", ErrInUse)
		}
		for _, k := range all[:len(all)-1] {
			clear(k.Key)
		}
		c.JoinKEK, c.JoinKEKs = nil, all[len(all)-1:]
		g, err = c.generations()
		return err
	})
	return g, err
}

// NewTransportKey draws a transport key, to which others seal from now on. What
// was sealed to the old ones opens until they are retired.
func NewTransportKey(keyFile string, u Unlock) (g keyring.Generations, err error) {
	private, public, err := newRSA()
	if err != nil {
		return g, err
	}
	defer clear(private)
	err = changeServer(keyFile, u, func(c *contents) error {
		c.OldTransports = append(c.OldTransports, storedTransport{c.Transport, c.TransportPublic})
		c.Transport, c.TransportPublic = slices.Clone(private), public
		g, err = c.generations()
		return err
	})
	return g, err
}

// RetireTransportKeys takes out every transport key but the newest.
func RetireTransportKeys(keyFile string, u Unlock) (g keyring.Generations, err error) {
	err = changeServer(keyFile, u, func(c *contents) error {
		if len(c.OldTransports) == 0 {
			return fmt.Errorf("%w: there is one transport key only; draw the next one first", ErrInUse)
		}
		for _, k := range c.OldTransports {
			clear(k.Private)
		}
		c.OldTransports = nil
		g, err = c.generations()
		return err
	})
	return g, err
}

// NewExportKey draws a key that signs exports from now on; the first of a file from a
// version without exports. What older ones began to sign they can sign to the end.
func NewExportKey(keyFile string, u Unlock) (g keyring.Generations, err error) {
	private, public, err := newExportKey()
	if err != nil {
		return g, err
	}
	defer clear(private)
	err = changeServer(keyFile, u, func(c *contents) error {
		c.OldExports = c.exportKeys()
		c.Export, c.ExportPublic = slices.Clone(private), public
		g, err = c.generations()
		return err
	})
	return g, err
}

// RetireExportKeys takes out the private half of every key that signs exports but the
// newest. The public halves stay: old files verify by them.
func RetireExportKeys(keyFile string, u Unlock) (g keyring.Generations, err error) {
	err = changeServer(keyFile, u, func(c *contents) error {
		retired := false
		for i := range c.OldExports {
			k := &c.OldExports[i]
			retired = retired || len(k.Private) > 0
			clear(k.Private)
			k.Private = nil
		}
		if !retired {
			return fmt.Errorf("%w: there is one key only that signs exports; draw the next one first", ErrInUse)
		}
		g, err = c.generations()
		return err
	})
	return g, err
}

// NewCustodyKey draws the next generation of the custody key: its private half goes
// to a new custody file, its public half into the key file. The old custody file
// opens what was sealed before, until that was sealed anew. The steps and what a
// crash leaves are those of Init.
func NewCustodyKey(opt InitOptions) (g keyring.Generations, err error) {
	defer scrub()
	secret.Do(func() { g, err = newCustodyKey(opt) })
	return g, err
}

func newCustodyKey(opt InitOptions) (g keyring.Generations, err error) {
	if opt.Unlock == opt.CustodyUnlock || filepath.Clean(opt.KeyFile) == filepath.Clean(opt.CustodyFile) {
		return g, fmt.Errorf("%w: keep key file and custody file, and what opens them, apart", ErrUnlock)
	}
	l, err := newFileLock(opt.CustodyFile, opt.CustodyUnlock)
	if err != nil {
		return g, fmt.Errorf("custody file: %w", err)
	}
	custody := &contents{Format: formatCustody}
	defer custody.wipe()
	var public []byte
	if custody.CustodyPrivate, public, err = newRSA(); err != nil {
		return g, err
	}
	err = changeServer(opt.KeyFile, opt.Unlock, func(c *contents) error {
		c.CustodyGeneration = max(c.CustodyGeneration, 1) + 1
		c.Custody, custody.CustodyGeneration = public, c.CustodyGeneration
		if err := createKeyFile(opt.CustodyFile, l, custody); err != nil {
			return fmt.Errorf("custody file: %w", err)
		}
		g, err = c.generations()
		return err
	})
	return g, err
}
