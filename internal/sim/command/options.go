package command

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// deviceFlags select a device and its firmware.
type deviceFlags struct {
	devEUI  string
	joinEUI string
	index   int
	mac     string
}

func (f *deviceFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.devEUI, "dev-eui", "", "the device, by DevEUI (16 hexadecimal digits)")
	cmd.Flags().StringVar(&f.joinEUI, "join-eui", "", "its JoinEUI, where a DevEUI is there twice")
	cmd.Flags().IntVar(&f.index, "silicon-index", 0, "the device, by its place in the silicon files, from 0")
	cmd.Flags().StringVar(&f.mac, "mac", "", "LoRaWAN version of the device's firmware, 1.0.0 to 1.1, as it was imported at the server\n(default: what it was last time, 1.0.4 at first)")
	cmd.MarkFlagsMutuallyExclusive("dev-eui", "silicon-index")
}

func (f *deviceFlags) open(l *lab.Lab) (*lab.Device, error) {
	sel := lab.Selector{Index: f.index}
	var err error
	if f.index < 0 {
		return nil, errors.New("--silicon-index: want 0 or more")
	}
	if f.devEUI != "" {
		if sel.DevEUI, err = lorawan.ParseEUI64(f.devEUI); err != nil {
			return nil, fmt.Errorf("--dev-eui: %w", err)
		}
	}
	if f.joinEUI != "" {
		if sel.JoinEUI, err = lorawan.ParseEUI64(f.joinEUI); err != nil {
			return nil, fmt.Errorf("--join-eui: %w", err)
		}
	}
	var version lorawan.MACVersion
	if f.mac != "" {
		if version, err = lorawan.ParseMACVersion(f.mac); err != nil {
			return nil, fmt.Errorf("--mac: %w", err)
		}
	}
	return l.Device(sel, version)
}

// peerFlags say who asks, and how.
type peerFlags struct {
	ns       string
	as       string
	protocol string
	dialect  string
	nsid     string
	expect   string
}

func (f *peerFlags) register(cmd *cobra.Command) {
	f.registerAS(cmd)
	cmd.Flags().StringVar(&f.ns, "ns", "", "the Network Server, by its name in sim.json (default: the first)")
	cmd.Flags().StringVar(&f.nsid, "nsid", "", "NSID in 1.1 messages (default: from sim.json)")
}

// registerAS registers what concerns an Application Server alone, too.
func (f *peerFlags) registerAS(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.as, "as", "", "the Application Server, by its name in sim.json (default: the first)")
	cmd.Flags().StringVar(&f.protocol, "protocol", sim.Protocol10, "version of Backend Interfaces, 1.0 or 1.1")
	cmd.Flags().StringVar(&f.dialect, "dialect", "", "spelling of messages: "+strings.Join(sim.DialectNames(), ", "))
	cmd.Flags().StringVar(&f.expect, "expect", "", "the ResultCode that must come of the first step (default: what the other flags make right)")
}

func (f *peerFlags) options() (lab.PeerOptions, error) {
	o := lab.PeerOptions{Protocol: f.protocol, Dialect: f.dialect}
	if f.nsid != "" {
		nsid, err := lorawan.ParseEUI64(f.nsid)
		if err != nil {
			return o, fmt.Errorf("--nsid: %w", err)
		}
		o.NSID = nsid
	}
	return o, nil
}

// peers makes both. An Application Server may be missing.
func (f *peerFlags) peers(l *lab.Lab) (*sim.NS, *sim.AS, error) {
	o, err := f.options()
	if err != nil {
		return nil, nil, err
	}
	ns, err := l.NS(f.ns, o)
	if err != nil {
		return nil, nil, err
	}
	as, err := l.AS(f.as, o)
	return ns, as, err
}

// cfListEU868 is the usual one of region EU868: 867.1 to 867.9 MHz.
const cfListEU868 = "184f84e85684b85e84886684586e8400"

// acceptFlags say what the network asks for, and how keys may travel.
type acceptFlags struct {
	network   string
	cfList    string
	appSKey   string
	clearKeys bool
	lose      bool
	rekey     bool
	verbose   bool
}

func (f *acceptFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.network, "network", "1.1", "highest LoRaWAN version of the network: 1.0, 1.1, or one in three numbers")
	cmd.Flags().StringVar(&f.cfList, "cflist", "eu868", "channel list in the accept: eu868, none, or 32 hexadecimal digits")
	cmd.Flags().StringVar(&f.appSKey, "appskey", "", "how AppSKey must travel: wrapped, session-key-id or clear (default: not in the clear)")
	cmd.Flags().BoolVar(&f.clearKeys, "clear-keys", false, "network session keys may travel unwrapped")
	cmd.Flags().BoolVar(&f.lose, "lose", false, "lose the accept on air: the device does not hear it")
	cmd.Flags().BoolVar(&f.rekey, "rekey", false, "an instruction to rekey must come in the place of the channel list")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print each check on a line of its own")
}

// joinOptions are what the flags ask of a join or rejoin.
func (f *acceptFlags) joinOptions(as *sim.AS) (o sim.JoinOptions, err error) {
	o = sim.JoinOptions{DLSettings: 3, RxDelay: 1, AS: as, ClearKeys: f.clearKeys, Lose: f.lose, Rekey: f.rekey}
	if o.Network, err = f.networkVersion(); err != nil {
		return o, err
	}
	if o.CFList, err = f.channelList(); err != nil {
		return o, err
	}
	switch way := sim.AppSKeyWay(f.appSKey); way {
	case "", sim.AppSKeyClear, sim.AppSKeyWrapped, sim.AppSKeyByID:
		o.AppSKey = way
	default:
		return o, errors.New("--appskey: want wrapped, session-key-id or clear")
	}
	return o, nil
}

// networkVersion: "1.0" is any network before 1.1.
func (f *acceptFlags) networkVersion() (lorawan.MACVersion, error) {
	if f.network == "1.0" {
		return lorawan.MAC1_0_4, nil
	}
	v, err := lorawan.ParseMACVersion(f.network)
	if err != nil {
		return 0, errors.New("--network: want 1.0, 1.1, or one of 1.0.0 to 1.0.4")
	}
	return v, nil
}

func (f *acceptFlags) channelList() (lorawan.CFList, error) {
	digits := f.cfList
	switch digits {
	case "none":
		return lorawan.CFList{}, nil
	case "eu868":
		digits = cfListEU868
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != lorawan.CFListLen {
		return lorawan.CFList{}, errors.New("--cflist: want eu868, none, or 32 hexadecimal digits")
	}
	return lorawan.ParseCFList(b)
}
