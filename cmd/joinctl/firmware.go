package main

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"joinery/internal/firmware"
	"joinery/internal/harden"
	"joinery/internal/signkey"

	"github.com/spf13/cobra"
)

func (a *app) firmwareCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "firmware",
		Short: "Sign firmware that elements verify, and look at signed firmware",
		Long: `Sign images of firmware so that a device's secure element verifies them before they
boot (SecureBoot of the ATECC608: SHA-256, ECDSA on P-256). No server is asked. What a
signed image says of product, hardware and anti-rollback counter is under the same
signature as its code; a statement beside it says the same to a server, which holds
evidence of devices against it.`,
	}
	key := &cobra.Command{Use: "key", Short: "The key that signs firmware"}
	key.AddCommand(a.firmwareKeyNewCommand())
	c.AddCommand(key, a.firmwareSignCommand(), a.firmwareVerifyCommand(), a.firmwareShowCommand())
	return c
}

// releaseView is a release for people and programs.
type releaseView struct {
	Kind      string `json:"kind"` // image or statement
	Product   string `json:"product"`
	Hardware  string `json:"hardware"`
	Version   string `json:"version"`
	Counter   uint32 `json:"counter"`
	SHA256    string `json:"sha256"`
	CodeBytes uint32 `json:"codeBytes,omitempty"`
	Signature string `json:"signature"` // r and s
	// Verified is left out where nobody named a key.
	Verified *bool `json:"verified,omitempty"`
}

func viewOf(kind string, r firmware.Release, signature [firmware.SignatureLen]byte) releaseView {
	return releaseView{
		Kind: kind, Product: r.Product, Hardware: r.Hardware, Version: r.Version, Counter: r.Counter,
		SHA256: hex.EncodeToString(r.Digest[:]), Signature: hex.EncodeToString(signature[:]),
	}
}

func (a *app) showRelease(v releaseView) error {
	return a.show(v, func() error {
		length, verified := "", ""
		if v.CodeBytes > 0 {
			length = fmt.Sprintf("%d bytes", v.CodeBytes)
		}
		if v.Verified != nil {
			verified = "yes, by that key"
		}
		return a.facts("signed", v.Kind, "product", v.Product, "hardware", v.Hardware, "version", v.Version,
			"counter", v.Counter, "code", length, "SHA-256", v.SHA256, "signature", v.Signature, "verified", verified)
	})
}

// signedFile is an image or a statement.
type signedFile struct {
	view    releaseView
	release firmware.Release
	verify  func(*ecdsa.PublicKey) error
}

// readSigned reads a signed image, however long, or a statement.
func readSigned(path string) (s signedFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer func() { _ = f.Close() }()
	image, err := firmware.ReadImage(f, nil)
	if err == nil {
		if n, err := f.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			return s, fmt.Errorf("%s: there is something behind the image: it was put together wrongly", path)
		}
		view := viewOf("image", image.Release(), image.Signature)
		view.CodeBytes = image.Length
		return signedFile{view, image.Release(), image.Verify}, nil
	}
	statement, otherErr := readStatement(path)
	switch {
	case otherErr == nil:
		return signedFile{viewOf("statement", statement.Release, statement.Signature), statement.Release, statement.Verify}, nil
	case errors.Is(err, firmware.ErrImage) && looksLikeJSON(f):
		return s, otherErr
	}
	return s, fmt.Errorf("%s: %w", path, err)
}

func looksLikeJSON(f *os.File) bool {
	first := make([]byte, 1)
	_, err := f.ReadAt(first, 0)
	return err == nil && first[0] == '{'
}

func readStatement(path string) (s firmware.Statement, err error) {
	text, err := readSmall(path, firmware.MaxStatement)
	if err != nil {
		return s, err
	}
	if s, err = firmware.Parse(text); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return s, err
}

// readSmall reads a file of at most that many bytes, and one more, so that who parses
// it finds that it is too long.
func readSmall(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, most+1))
}

func (a *app) firmwareShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a signed image or a statement says, verified or not",
		Long: `Show what a signed image or a statement about a release says of itself. Nothing is
verified: 'joinctl firmware verify' does that.`,
		Example: `  joinctl firmware show meter-3.1.0.signed
  joinctl firmware show meter-3.1.0.release.json --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := readSigned(args[0])
			if err != nil {
				return err
			}
			return a.showRelease(s.view)
		},
	}
}

func (a *app) firmwareVerifyCommand() *cobra.Command {
	var key, image string
	c := &cobra.Command{
		Use:   "verify FILE --public-key FILE",
		Short: "Verify a signed image or a statement",
		Long: `Verify the signature of a signed image, as an element's SecureBoot does, or that of a
statement. With --image, a statement must also be of that image.`,
		Example: `  joinctl firmware verify meter-3.1.0.signed --public-key meter.pub
  joinctl firmware verify meter-3.1.0.release.json --public-key meter.pub --image meter-3.1.0.signed`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			public, err := readReleaseKey(key)
			if err != nil {
				return err
			}
			s, err := verifySigned(args[0], public)
			if err != nil {
				return err
			}
			if image != "" {
				of, err := verifySigned(image, public)
				if err != nil {
					return err
				}
				if of.release != s.release {
					return fmt.Errorf("%s is not of %s: they differ in what they say, or in the digest", args[0], image)
				}
			}
			yes := true
			s.view.Verified = &yes
			return a.showRelease(s.view)
		},
	}
	c.Flags().StringVar(&key, "public-key", "", "file with the maker's public key, PEM")
	c.Flags().StringVar(&image, "image", "", "signed image that the statement must be of")
	require(c, "public-key")
	return c
}

func readReleaseKey(path string) (*ecdsa.PublicKey, error) {
	text, err := readSmall(path, signkey.MaxFile)
	if err != nil {
		return nil, err
	}
	key, err := signkey.ParsePublic(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func verifySigned(path string, key *ecdsa.PublicKey) (signedFile, error) {
	s, err := readSigned(path)
	if err == nil {
		if err = s.verify(key); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return s, err
}

// signFlags are those of one signing.
type signFlags struct {
	header                            firmware.Header
	previous, out, statement          string
	key, passphraseFile, workerBinary string
}

func (a *app) firmwareSignCommand() *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use:   "sign IMAGE --key FILE --product NAME --hardware ID --version-text VERSION --out FILE",
		Short: "Sign an image of firmware for elements that verify what they boot",
		Long: `Sign IMAGE, the code as it stands in a device's memory. --out gets the signed image,
which devices boot: a header of 256 bytes, the code, and a signature of 64 bytes over
SHA-256 of both, as the element's SecureBoot command takes it. Beside it a statement
about the release is written, for servers that hold evidence of devices against it.

The anti-rollback counter must rise with every release: a device that booted one takes
none with a lower counter again. With --previous, the statement or signed image of the
release before, it is one more unless --counter says otherwise, and one that did not
rise is refused, as are another product and other hardware. Without, give --counter.`,
		Example: `  joinctl firmware sign meter.bin --key meter.key --product meter-3 --hardware rev-c --version-text 3.1.0 \
    --counter 1 --out meter-3.1.0.signed
  joinctl firmware sign meter.bin --key meter.key --product meter-3 --hardware rev-c --version-text 3.2.0 \
    --previous meter-3.1.0.signed.release.json --out meter-3.2.0.signed --passphrase-file meter.pass`,
		Args: cobra.ExactArgs(1),
	}
	fl := c.Flags()
	fl.StringVar(&f.key, "key", "", "file of the key, as 'joinctl firmware key new' writes it")
	fl.StringVar(&f.passphraseFile, "passphrase-file", "", "file with the key's passphrase; - for standard input (default: you are asked)")
	fl.StringVar(&f.header.Product, "product", "", "what the firmware runs on, as the server knows it, such as meter-3")
	fl.StringVar(&f.header.Hardware, "hardware", "", "id of the hardware; devices of other hardware refuse the image")
	fl.StringVar(&f.header.Version, "version-text", "", "version for people, such as 3.1.0")
	fl.Uint32Var(&f.header.Counter, "counter", 0, "anti-rollback counter (default: one more than that of --previous)")
	fl.StringVar(&f.previous, "previous", "", "statement or signed image of the release before")
	fl.StringVar(&f.out, "out", "", "new file for the signed image")
	fl.StringVar(&f.statement, "statement", "", "new file for the statement (default: that of --out and .release.json)")
	fl.StringVar(&f.workerBinary, "worker", "", "path of joinery-hsm, for keys in a token (default: beside this program)")
	for _, name := range []string{"key", "product", "hardware", "version-text", "out"} {
		require(c, name)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if f.statement == "" {
			f.statement = f.out + ".release.json"
		}
		for _, path := range []string{f.out, f.statement} {
			if err := checkFree(path); err != nil {
				return err
			}
		}
		if f.previous == "" && !cmd.Flags().Changed("counter") {
			return usagef("want --previous, the release before, or --counter where there is none")
		}
		if err := harden.Process(); err != nil {
			return err
		}
		signer, err := a.openSigner(cmd.Context(), f.key, f.passphraseFile, f.workerBinary)
		if err != nil {
			return err
		}
		if err := f.follow(signer.Public, cmd.Flags().Changed("counter")); err != nil {
			return err
		}
		image, err := f.sign(args[0], signer)
		if err != nil {
			return err
		}
		view := viewOf("image", image.Release(), image.Signature)
		view.CodeBytes = image.Length
		a.sayf("signed image in %s, statement in %s\n", clean(f.out), clean(f.statement))
		if err := a.showRelease(view); err != nil || a.flags.json {
			return err
		}
		a.sayf("next: devices get %s; a server that holds evidence against it: joinctl product release add %s %s\n", clean(f.out), view.Product, clean(f.statement))
		return nil
	}
	return c
}

// follow holds the release against the one before, and gives it its counter.
func (f *signFlags) follow(key *ecdsa.PublicKey, counter bool) error {
	if f.previous == "" {
		return nil
	}
	before, err := verifySigned(f.previous, key)
	if err != nil {
		return err
	}
	if !counter {
		f.header.Counter = before.release.Counter + 1
	}
	next := firmware.Image{Header: f.header}.Release()
	if err := next.Follows(before.release); err != nil {
		return fmt.Errorf("%s: %w", f.previous, err)
	}
	return nil
}

// sign writes image and statement, both whole or not at all.
func (f *signFlags) sign(path string, signer releaseSigner) (image firmware.Image, err error) {
	code, err := os.Open(path)
	if err != nil {
		return image, err
	}
	defer func() { _ = code.Close() }()
	info, err := code.Stat()
	if err != nil {
		return image, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > firmware.MaxCode {
		return image, fmt.Errorf("%s: want a file of 1 to %d bytes", path, firmware.MaxCode)
	}
	f.header.Length = uint32(info.Size())
	err = writeNew(f.out, func(w io.Writer) error {
		image, err = firmware.SignImage(w, f.header, code, signer.Sign)
		return err
	})
	if err != nil {
		return image, err
	}
	err = writeNew(f.statement, func(w io.Writer) error {
		s, err := firmware.Sign(image.Release(), signer.Sign)
		if err != nil {
			return err
		}
		text, err := s.Text()
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	if err == nil {
		// What is signed wrongly, by a token or anybody, is not shipped.
		if err = image.Verify(signer.Public); err == nil {
			_, err = verifySigned(f.statement, signer.Public)
		}
		err = joinRemoved(err, f.statement)
	}
	return image, joinRemoved(err, f.out)
}

// joinRemoved removes a file where something failed.
func joinRemoved(err error, path string) error {
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// writeNew writes a new file, whole or not at all.
func writeNew(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".signing-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644) // nothing in it is secret
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return errIsThere(path)
	} else if err != nil {
		return err
	}
	return nil
}
