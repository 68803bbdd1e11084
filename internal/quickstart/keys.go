package quickstart

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"joinery"
	"joinery/internal/factory"
	"joinery/internal/keyring/soft"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// What the factory makes. The identifiers are locally administered (IEEE 802,
// second bit of the first byte), so that they are nobody's.
const (
	masterName       = "quickstart"
	masterGeneration = 1

	elementsJoinEUI  = 0x0200_0000_0000_0000 // range of elements: 256 JoinEUIs
	keyListsJoinEUI  = 0x0200_0000_0000_0100 // range of key lists: 256 JoinEUIs
	joinEUIRangeSize = 0x100
	firstDevEUI      = 0x0200_00FF_FE00_0001
	lastDevEUI       = 0x0200_00FF_FEFF_FFFF
)

// FirstDevice names the first element: its JoinEUI and DevEUI.
func FirstDevice() (joinEUI, devEUI lorawan.EUI64) {
	return lorawan.EUI64FromUint64(elementsJoinEUI), lorawan.EUI64FromUint64(firstDevEUI)
}

// passphrased draws a passphrase for keys/NAME.age.
func (l layout) passphrased(name string) (keyFile string, unlock soft.Unlock, err error) {
	passphrase := l.path("keys", name+".passphrase")
	return l.path("keys", name+".age"), soft.Unlock{PassphraseFile: passphrase}, soft.NewPassphraseFile(passphrase)
}

// unlock says how a key file that was made is opened.
func (l layout) unlock(name string) soft.Options {
	return soft.Options{
		KeyFile: l.path("keys", name+".age"),
		Unlock:  soft.Unlock{PassphraseFile: l.path("keys", name+".passphrase")},
	}
}

func (l layout) makeServerKeys() error {
	server, unlock, err := l.passphrased("server")
	if err != nil {
		return err
	}
	custody, custodyUnlock, err := l.passphrased("custody")
	if err != nil {
		return err
	}
	return soft.Init(soft.InitOptions{
		KeyFile: server, Unlock: unlock, CustodyFile: custody, CustodyUnlock: custodyUnlock,
	})
}

func (l layout) makeFactoryKeys() error {
	file, unlock, err := l.passphrased("factory")
	if err != nil {
		return err
	}
	if err := soft.InitFactory(soft.FactoryOptions{
		KeyFile: file, Unlock: unlock, CommonName: "Quickstart factory", Organisation: "Joinery quickstart",
	}); err != nil {
		return err
	}
	_, err = soft.NewMaster(file, unlock, masterName)
	return err
}

// shareMaster hands the factory's master key to the server, sealed, and leaves
// the server's transport key where customers would find it.
func (l layout) shareMaster() error {
	server, maker := l.unlock("server"), l.unlock("factory")
	transport, err := soft.TransportKey(server.KeyFile, server.Unlock)
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.path("transport.pub"), transport.MarshalPEM(), 0o644); err != nil {
		return err
	}
	var shared bytes.Buffer
	sent, err := soft.ShareMaster(maker.KeyFile, maker.Unlock, masterName, transport, &shared)
	if err != nil {
		return err
	}
	received, err := soft.AcceptMaster(server.KeyFile, server.Unlock, &shared)
	if err != nil {
		return err
	}
	if sent.KCV != received.KCV {
		return fmt.Errorf("master key %s has another key check value at the server than at the factory", masterName)
	}
	return nil
}

// makeRecipient makes the key pair to which the simulator's silicon is sealed.
// Only the simulator reads the private half.
func (l layout) makeRecipient() error {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := seal.NewPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(l.path("sim", "recipient.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(l.path("sim", "recipient.pub"), public.MarshalPEM(), 0o644),
	)
}

// pinned is what a Join Server pins of a factory: DER certificates.
type pinned struct{ certificate, root []byte }

// provision has the factory make elements, and gives what the server pins of it.
func (l layout) provision(ctx context.Context, count uint64) (m pinned, err error) {
	text, err := os.ReadFile(l.path("sim", "recipient.pub"))
	if err != nil {
		return m, err
	}
	recipient, err := seal.ParsePublicKey(text)
	if err != nil {
		return m, err
	}
	keys, err := soft.OpenFactory(ctx, l.unlock("factory"))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	joinEUI, devEUI := FirstDevice()
	order := factory.Order{
		Master: masterName, Generation: masterGeneration, JoinEUI: joinEUI, DevEUI: devEUI, Count: count,
		Recipient: recipient, Maker: "Joinery quickstart", At: time.Now(), Rekey: joinery.RekeyS,
	}
	err = writeNew(l.path("sim", "manifest.json"), 0o644, func(manifest io.Writer) error {
		return writeNew(l.path("sim", "elements.silicon"), 0o600, func(silicon io.Writer) error {
			return factory.Make(ctx, keys, order, manifest, silicon, func(uint64) {})
		})
	})
	return pinned{keys.Certificate(), keys.Root()}, err
}

func writeNew(path string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
