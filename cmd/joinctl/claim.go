package main

import (
	"context"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

// bindingFlags are the flags that describe a binding; prefix is "" or "bind-".
type bindingFlags struct {
	prefix                     string
	netID, nsid, asID, appSKey string
	clearNwkKeys               bool
}

func (b *bindingFlags) register(c *cobra.Command, prefix string) {
	b.prefix = prefix
	f := c.Flags()
	f.StringVar(&b.netID, prefix+"net-id", "", "NetID of the home network, 6 hexadecimal digits")
	f.StringVar(&b.nsid, prefix+"nsid", "", "NSID of the home Network Server, if the network has several")
	f.StringVar(&b.asID, prefix+"as-id", "", "AS-ID that may have AppSKey")
	f.StringVar(&b.appSKey, "app-s-key", "",
		"how AppSKey travels: clear (the network reads the payload; ChirpStack needs it to decrypt), wrapped (for the Application Server), session-key-id (it fetches the key: what --"+prefix+"as-id alone means)")
	f.BoolVar(&b.clearNwkKeys, "clear-nwk-keys", false, "consent that network session keys travel unwrapped to a network without a KEK")
}

// isSet tells whether a network was named.
func (b *bindingFlags) isSet() bool { return b.netID != "" }

// binding reads the flags.
func (b *bindingFlags) binding() (n client.NewBinding, err error) {
	if n.NetID, err = lorawan.ParseNetID(b.netID); err != nil {
		return n, usagef("--%snet-id: %w", b.prefix, err)
	}
	if b.nsid != "" {
		if n.NSID, err = lorawan.ParseEUI64(b.nsid); err != nil {
			return n, usagef("--%snsid: %w", b.prefix, err)
		}
	}
	n.ASID, n.AppSKey, n.ClearNwkKeys = b.asID, b.appSKey, b.clearNwkKeys
	if n.AppSKey == "" {
		n.AppSKey = joinery.AppSKeyByID.String()
	}
	policy, err := joinery.ParseAppSKeyPolicy(n.AppSKey)
	if err != nil {
		return n, usagef("--app-s-key: %w", err)
	}
	if n.ASID == "" && policy != joinery.AppSKeyClear {
		return n, usagef("say who may have AppSKey: --%sas-id names an Application Server; --app-s-key clear gives it to the network itself, which then reads the payload", b.prefix)
	}
	return n, nil
}

// optional reads the flags where a binding need not be given.
func (b *bindingFlags) optional() (*client.NewBinding, error) {
	if !b.isSet() {
		if b.nsid != "" || b.asID != "" || b.appSKey != "" || b.clearNwkKeys {
			return nil, usagef("a binding needs --%snet-id", b.prefix)
		}
		return nil, nil
	}
	n, err := b.binding()
	if err != nil {
		return nil, err
	}
	return &n, nil
}

func (a *app) claimCommand() *cobra.Command {
	var token string
	var b bindingFlags
	c := a.command(&cobra.Command{
		Use:   "claim JOINEUI/DEVEUI --owner-token-file FILE",
		Short: "Become the owner of a device",
		Long: `Become the owner of a device with the owner token from its label, and say which
network may join it. The token is read from a file, or from standard input with
'-', so that it does not show in the list of processes.`,
		Example: `  joinctl claim 70B3D57ED0000000/0004A310001AA90A --owner-token-file token.txt \
      --net-id 000013 --as-id as.example.com
  printf %s "$TOKEN" | joinctl claim 70B3D57ED0000000/0004A310001AA90A --owner-token-file - \
      --net-id 60002A --app-s-key clear`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, api *client.Client, args []string) error {
		f, err := deviceFilter(args[0])
		if err != nil || f.JoinEUI.IsZero() {
			return usagef("a claim needs JOINEUI/DEVEUI, both from the label")
		}
		devEUI, err := lorawan.ParseEUI64(f.DevEUI)
		if err != nil {
			return usagef("DevEUI: %w", err)
		}
		if token == "" {
			return usagef("give --owner-token-file FILE, or - for standard input")
		}
		claim := client.NewClaim{JoinEUI: f.JoinEUI, DevEUI: devEUI}
		if claim.Binding, err = b.optional(); err != nil {
			return err
		}
		if claim.OwnerToken, err = a.readSecretLine(token, "owner token"); err != nil {
			return err
		}
		d, err := api.Claim(ctx, claim)
		if err != nil {
			return err
		}
		return a.showDevice(d)
	})
	c.Flags().StringVar(&token, "owner-token-file", "", "file with the owner token; - for standard input")
	b.register(c, "")
	return c
}

func (a *app) bindCommand() *cobra.Command {
	var b bindingFlags
	var n client.NewBinding
	c := a.deviceAct(&cobra.Command{
		Use:   "bind DEVICE --net-id NETID",
		Short: "Say which network may join a device",
		Long: `Say which network may join a device, which Application Server may have its AppSKey,
and how that key travels. It takes effect with the next join; what was handed out
before stays handed out.` + deviceHelp,
		Example: `  joinctl bind 0004A310001AA90A --net-id 000013 --as-id as.example.com
  joinctl bind 0004A310001AA90A --net-id 60002A --app-s-key clear`,
	}, "bound", func(ctx context.Context, api *client.Client, d client.Device) error {
		return api.Bind(ctx, d.ID, n)
	})
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		n, err = b.binding()
		return err
	}
	b.register(c, "")
	require(c, "net-id")
	return c
}

func (a *app) unbindCommand() *cobra.Command {
	return a.deviceAct(&cobra.Command{
		Use:     "unbind DEVICE",
		Short:   "Let no network join a device",
		Long:    "Let no network join a device until it is bound again." + deviceHelp,
		Example: "  joinctl unbind 0004A310001AA90A",
	}, "bound to no network", func(ctx context.Context, api *client.Client, d client.Device) error {
		return api.Unbind(ctx, d.ID)
	})
}
