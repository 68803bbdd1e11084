package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/internal/firmware"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

func (a *app) productCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "product",
		Short: "Products that you make, their keys and signed firmware",
		Long: `For makers: register a product with the DevEUIs of its devices, the keys that verify its
releases and its devices' tokens, and each signed release. Evidence of devices is held
against that. PRODUCT is a name or an id.`,
	}
	key := &cobra.Command{Use: "key", Short: "What verifies releases of a product, and evidence of its devices"}
	key.AddCommand(a.productKeyAddCommand(), a.productKeyListCommand(), a.productKeyRemoveCommand())
	release := &cobra.Command{Use: "release", Short: "Signed firmware of a product"}
	release.AddCommand(a.releaseAddCommand(), a.releaseListCommand(), a.releaseWithdrawCommand(), a.releaseFloorCommand())
	c.AddCommand(a.productAddCommand(), a.productListCommand(), a.productShowCommand(), a.productRemoveCommand(), key, release)
	return c
}

// findProduct finds a product by its id or name.
func findProduct(ctx context.Context, api *client.Client, arg string) (client.Product, error) {
	if id, err := joinery.ParseProductID(arg); err == nil {
		return api.Product(ctx, id)
	}
	list, err := api.Products(ctx)
	if err != nil {
		return client.Product{}, err
	}
	var found []client.Product
	for _, p := range list {
		if p.Name == arg {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return client.Product{}, usagef("%d products are named %q: 'joinctl product list' shows their ids", len(found), arg)
	}
	return found[0], nil
}

func (a *app) productAddCommand() *cobra.Command {
	in := client.NewProduct{}
	var ranges []string
	var slots []uint
	var counter uint8
	c := a.command(&cobra.Command{
		Use:   "add NAME --hardware ID --dev-euis FIRST-LAST",
		Short: "Register a product",
		Long: `Register a product: its name and hardware id, as signed releases have them, and the
DevEUIs of its devices, of those that you imported. --boot-slots says which slots of its
element hold the key that may be used after a verified boot only, and the digest of the
verified image; without it there is no L2.`,
		Example: `  joinctl product add meter-3 --hardware rev-c --dev-euis 0004A31000000000-0004A310FFFFFFFF
  joinctl product add meter-4 --hardware rev-a --dev-euis 0004A31100000000-0004A311FFFFFFFF --boot-slots 2,7`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) (err error) {
		in.Name = args[0]
		for _, r := range ranges {
			first, last, ok := strings.Cut(r, "-")
			if !ok {
				last = first
			}
			var span client.EUIRange
			if span.First, err = lorawan.ParseEUI64(first); err == nil {
				span.Last, err = lorawan.ParseEUI64(last)
			}
			if err != nil {
				return usagef("--dev-euis: want FIRST-LAST, 16 hexadecimal digits each")
			}
			in.DevEUIs = append(in.DevEUIs, span)
		}
		switch {
		case len(slots) == 2 && slots[0] < 16 && slots[1] < 16:
			in.Boot = &client.BootProfile{KeySlot: uint8(slots[0]), DigestSlot: uint8(slots[1]), Counter: counter}
		case len(slots) > 0:
			return usagef("--boot-slots: want two slots from 0 to 15, the key's and the digest's, such as 2,7")
		}
		p, err := api.AddProduct(ctx, in)
		if err != nil {
			return err
		}
		return a.doneThen(p, fmt.Sprintf("what verifies its releases: joinctl product key add %s --use release --public FILE", p.Name), "registered %s (%s)", p.Name, p.ID)
	})
	f := c.Flags()
	f.StringVar(&in.Hardware, "hardware", "", "hardware id, as signed releases have it")
	f.StringSliceVar(&ranges, "dev-euis", nil, "DevEUIs of its devices, FIRST-LAST; may be given again")
	f.UintSliceVar(&slots, "boot-slots", nil, "slots of the key and of the digest, where its element verifies firmware")
	f.Uint8Var(&counter, "boot-counter", 0, "the element's monotonic counter that goes with images: 0 or 1")
	require(c, "hardware")
	require(c, "dev-euis")
	return c
}

func (a *app) productListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list", Short: "List products that you registered", Example: "  joinctl product list", Args: cobra.NoArgs,
	}, func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.Products(ctx)
		if err != nil {
			return err
		}
		return showList(a, list, columns[client.Product]{
			names: []string{"name", "hardware", "DevEUIs", "L2", "since", "id"},
			cells: func(p client.Product) []any {
				return []any{p.Name, p.Hardware, rangesText(p.DevEUIs), bootText(p.Boot), when(p.CreatedAt, "?"), p.ID}
			},
			empty: "no products; 'joinctl product add' registers one",
		})
	})
}

func rangesText(list []client.EUIRange) string {
	var all texts
	for _, r := range list {
		all.add("", fmt.Sprintf("%s-%s", r.First, r.Last))
	}
	return strings.Join(all, ", ")
}

func bootText(b *client.BootProfile) string {
	if b == nil {
		return "no"
	}
	return fmt.Sprintf("key in slot %d, digest in %d, counter %d", b.KeySlot, b.DigestSlot, b.Counter)
}

func (a *app) productShowCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "show PRODUCT", Short: "Show one product", Example: "  joinctl product show meter-3", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		return a.show(p, func() error {
			return a.facts("name", p.Name, "id", p.ID, "hardware", p.Hardware, "DevEUIs", rangesText(p.DevEUIs), "L2", bootText(p.Boot),
				"maker", p.Organisation, "since", when(p.CreatedAt, "?"))
		})
	})
}

func (a *app) productRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use:     "remove PRODUCT",
		Short:   "Take a product away, with its keys and releases",
		Long:    "Take a product away, with its keys and releases. What its devices have shown above L1\nends, and nothing new is accepted above L1.",
		Example: "  joinctl product remove meter-3 --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("The keys and releases of %s go with it, for ever", p.Name), p.Name, "--yes"); err != nil {
			return err
		}
		if err := api.RemoveProduct(ctx, p.ID); err != nil {
			return err
		}
		return a.done(map[string]string{"product": p.ID.String()}, "removed %s", p.Name)
	})
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) productKeyAddCommand() *cobra.Command {
	var use, public, device string
	c := a.command(&cobra.Command{
		Use:   "add PRODUCT --use USE --public FILE",
		Short: "Register a key of a product, or of one device of it",
		Long: `Register a public key (ECDSA over P-256, a PEM file): for releases, for tokens of all
devices of the product or of one, or for what the element of one device signs after a
verified boot, where its manifest names no such key.`,
		Example: `  joinctl product key add meter-3 --use release --public releases.pub
  joinctl product key add meter-3 --use token --public device.pub --device 0004A310001AA90A`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		der, err := readPublicDER(public)
		if err != nil {
			return err
		}
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		in := client.NewProductKey{Use: use, Public: der}
		if device != "" {
			d, err := findDevice(ctx, api, device)
			if err != nil {
				return err
			}
			in.Device = d.ID
		}
		k, err := api.AddProductKey(ctx, p.ID, in)
		if err != nil {
			return err
		}
		next := "its devices may show evidence: joinctl attest challenge DEVICE --out FILE"
		if k.Use == "release" {
			next = fmt.Sprintf("its signed releases: joinctl product release add %s STATEMENT", p.Name)
		}
		return a.doneThen(k, next, "registered %s of %s for %ss", k.ID, p.Name, k.Use)
	})
	f := c.Flags()
	f.StringVar(&use, "use", "", "release, token or boot")
	f.StringVar(&public, "public", "", "PEM file of the public key")
	f.StringVar(&device, "device", "", "of this device alone")
	require(c, "use")
	require(c, "public")
	return c
}

func (a *app) productKeyListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list PRODUCT", Short: "List the keys of a product", Example: "  joinctl product key list meter-3", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		return showSeq(a, api.ProductKeys(ctx, p.ID, client.ProductKeysQuery{}), columns[client.ProductKey]{
			names: []string{"use", "device", "since", "id"},
			cells: func(k client.ProductKey) []any {
				return []any{k.Use, ofDevice(k.Device), when(k.CreatedAt, "?"), k.ID}
			},
			empty: "no keys; 'joinctl product key add' registers one",
		})
	})
}

func (a *app) productKeyRemoveCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use: "remove PRODUCT KEY", Short: "Take a key of a product away",
		Long:    "Take a key of a product away. What it verified ends: for a key of releases these are\nwithdrawn, until another key signs the same again; for a key of tokens or of an element,\nwhat devices have shown by it. To go over to another key, register that beside it.",
		Example: "  joinctl product key remove meter-3 pky_01qzm30f1vd60 --yes", Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseProductKeyID(args[1])
		if err != nil {
			return usagef("%s: want the id of a key, as 'joinctl product key list' shows it", args[1])
		}
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, "Nothing is verified by it any more", args[1], "--yes"); err != nil {
			return err
		}
		if err := api.RemoveProductKey(ctx, p.ID, id); err != nil {
			return err
		}
		return a.done(map[string]string{"key": id.String()}, "removed %s of %s", id, p.Name)
	})
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) releaseAddCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:     "add PRODUCT FILE",
		Short:   "Register signed firmware",
		Long:    "Register a signed statement about a release of firmware (joinery-firmware/1): from then\non evidence of devices may name it.",
		Example: "  joinctl product release add meter-3 meter-3.1.0.json",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		text, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		if _, err := firmware.Parse(text); err != nil {
			return fmt.Errorf("%s: %w", args[1], err)
		}
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		f, err := api.AddFirmwareRelease(ctx, p.ID, client.NewFirmwareRelease{Statement: string(text)})
		if err != nil {
			return err
		}
		return a.done(f, "registered %s %s, counter %d (%s)", p.Name, f.Version, f.Counter, f.ID)
	})
}

func (a *app) releaseListCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use: "list PRODUCT", Short: "List the releases of a product", Example: "  joinctl product release list meter-3", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		return showSeq(a, api.FirmwareReleases(ctx, p.ID, client.FirmwareReleasesQuery{}), columns[client.FirmwareRelease]{
			names: []string{"version", "counter", "SHA-256", "since", "withdrawn", "id"},
			cells: func(f client.FirmwareRelease) []any {
				return []any{f.Version, f.Counter, f.SHA256, when(f.At, "?"), when(f.WithdrawnAt, "-"), f.ID}
			},
			empty: "no releases; 'joinctl product release add' registers one",
		})
	})
}

func (a *app) releaseWithdrawCommand() *cobra.Command {
	var yes bool
	c := a.command(&cobra.Command{
		Use: "withdraw PRODUCT RELEASE", Short: "Have evidence of a release prove nothing any more",
		Long:    "Have evidence of a release, by its id, prove nothing any more. What devices have shown\nof it ends; where their owners want it, they join no more until they show another.",
		Example: "  joinctl product release withdraw meter-3 rel_01qzm30f1vd60 --yes", Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseReleaseID(args[1])
		if err != nil {
			return usagef("%s: want the id of a release, as 'joinctl product release list' shows it", args[1])
		}
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, "It cannot be registered again", args[1], "--yes"); err != nil {
			return err
		}
		if err := api.WithdrawFirmwareRelease(ctx, p.ID, id); err != nil {
			return err
		}
		return a.done(map[string]string{"release": id.String()}, "withdrew %s of %s", id, p.Name)
	})
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) releaseFloorCommand() *cobra.Command {
	var yes bool
	var counter uint32
	c := a.command(&cobra.Command{
		Use: "floor PRODUCT RELEASE --counter N", Short: "Let devices that have shown a withdrawn release go down to an older one",
		Long:    "Let devices that have shown a release, which was withdrawn, go down to a counter below\nits own. Without this nothing below the highest counter that a device has shown is\naccepted of it, withdrawn or not. It is for a counter that was a mistake, or a release\nthat has to be taken back before there is a newer one.",
		Example: "  joinctl product release floor meter-3 rel_01qzm30f1vd60 --counter 2 --yes", Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		id, err := joinery.ParseReleaseID(args[1])
		if err != nil {
			return usagef("%s: want the id of a release, as 'joinctl product release list' shows it", args[1])
		}
		p, err := findProduct(ctx, api, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, "Devices that have shown it can go back to older firmware", args[1], "--yes"); err != nil {
			return err
		}
		if err := api.LowerFirmwareFloor(ctx, p.ID, id, client.FirmwareFloor{Counter: counter}); err != nil {
			return err
		}
		return a.done(map[string]any{"release": id.String(), "counter": counter}, "devices that have shown %s of %s may go down to counter %d", id, p.Name, counter)
	})
	c.Flags().Uint32Var(&counter, "counter", 0, "the lowest counter that is accepted (required)")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = c.MarkFlagRequired("counter") // there is such a flag
	return c
}

// ofDevice says whose a key is.
func ofDevice(id joinery.DeviceID) string {
	if id == 0 {
		return "all"
	}
	return id.String()
}
