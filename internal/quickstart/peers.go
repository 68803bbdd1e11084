package quickstart

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// peer is a party that the server knows, and the simulator plays.
type peer struct {
	name     string // also of its files in pki/
	settings client.PeerSettings
	role     joinery.KEKRole
	kekLabel string
}

// peers are the parties of the quickstart: a Network Server, an Application
// Server, and another Network Server to which no device is bound.
func peers() []peer {
	ns := func(name string, netID lorawan.NetID) peer {
		return peer{
			name: name, role: joinery.KEKForNS, kekLabel: "ns-" + netID.String() + "-1",
			settings: client.PeerSettings{Name: name, NetIDs: []lorawan.NetID{netID}, NSIDs: []lorawan.EUI64{nsidOf(netID)}},
		}
	}
	return []peer{
		ns("ns", lorawan.NetID{0x00, 0x00, 0x13}),
		{
			name: "as", role: joinery.KEKForAS, kekLabel: "as.example.com-1",
			settings: client.PeerSettings{Name: "as", ASIDs: []string{ASID}},
		},
		ns("other-ns", lorawan.NetID{0x00, 0x00, 0x42}),
	}
}

// nsidOf gives the one Network Server of a network here an NSID: an EUI-64 that
// is locally administered and ends in the NetID. Peers of Backend Interfaces 1.1
// must say one.
func nsidOf(netID lorawan.NetID) lorawan.EUI64 {
	return lorawan.EUI64{0x02, 5: netID[0], 6: netID[1], 7: netID[2]}
}

// ASID is the AS-ID of the Application Server.
const ASID = "as.example.com"

// NetID is that of the Network Server to which a newcomer binds devices.
func NetID() lorawan.NetID { return peers()[0].settings.NetIDs[0] }

// makePKI makes the authority and certificate of the interop listener, and for
// each peer an authority of its own with one certificate under it.
func (l layout) makePKI(now time.Time) error {
	p := pkiFiles{dir: l.path("pki"), now: now}
	ca, err := p.authority("ca", "Join Server CA")
	if err != nil {
		return err
	}
	if err := p.server("server", ca); err != nil {
		return err
	}
	for _, peer := range peers() {
		ca, err := p.authority(peer.name+"-ca", peer.name+" CA")
		if err != nil {
			return err
		}
		if err := p.client(peer.name, commonName(peer), ca); err != nil {
			return err
		}
	}
	return nil
}

// commonName is what a peer's certificate calls it: its NetID or AS-ID.
func commonName(p peer) string {
	if len(p.settings.ASIDs) > 0 {
		return p.settings.ASIDs[0]
	}
	return p.settings.NetIDs[0].String()
}

// register runs the server and tells it over its API whom it serves: ranges, the
// factory's signer, and the peers with KEKs of 128 random bits, of which the
// simulator gets the peers' copies.
func (l layout) register(ctx context.Context, c config.Config, log *slog.Logger, m pinned) error {
	return serveWhile(ctx, c, log, func(ctx context.Context) error {
		api, err := client.New(client.Options{Socket: c.API.Socket, UserAgent: "joinery quickstart"})
		if err != nil {
			return err
		}
		defer api.Close()
		if err := registerMaker(ctx, api, m); err != nil {
			return err
		}
		sim := newSimConfig("https://" + c.Interop.Address)
		for _, p := range peers() {
			kek := make([]byte, 16)
			rand.Read(kek) // never fails
			err := l.registerPeer(ctx, api, p, kek)
			if err != nil {
				return fmt.Errorf("peer %s: %w", p.name, err)
			}
			sim.add(p, kek)
		}
		return l.writeSim(sim)
	})
}

// registerMaker assigns the JoinEUI ranges and pins the factory's signer.
func registerMaker(ctx context.Context, api *client.Client, m pinned) error {
	elements := euiRange(elementsJoinEUI, joinEUIRangeSize)
	for _, r := range []client.NewJoinEUIRange{
		{EUIRange: elements, Elements: true},
		{EUIRange: euiRange(keyListsJoinEUI, joinEUIRangeSize)},
	} {
		if _, err := api.AssignJoinEUIRange(ctx, r); err != nil {
			return fmt.Errorf("assign JoinEUI range: %w", err)
		}
	}
	_, err := api.AddSigner(ctx, client.NewSigner{
		Name: "quickstart factory", Certificate: m.certificate, Roots: m.root,
		JoinEUIs: elements, DevEUIs: euiRange(firstDevEUI, lastDevEUI-firstDevEUI+1),
		Master: masterName, Generation: masterGeneration,
	})
	if err != nil {
		return fmt.Errorf("pin the factory's signer: %w", err)
	}
	return nil
}

func euiRange(first, count uint64) client.EUIRange {
	return client.EUIRange{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(first + count - 1)}
}

// registerPeer adds one peer by its CA, with its KEK sealed to the server.
func (l layout) registerPeer(ctx context.Context, api *client.Client, p peer, kek []byte) error {
	ca, err := readCertificate(l.path("pki", p.name+"-ca.crt"))
	if err != nil {
		return err
	}
	transport, err := readTransport(ctx, api)
	if err != nil {
		return err
	}
	header, k, err := seal.SealKEK(transport, string(p.role), p.kekLabel, kek)
	if err != nil {
		return err
	}
	p.settings.Credentials = []client.Credential{{Kind: string(joinery.CredentialCA), CA: ca}}
	_, err = api.AddPeer(ctx, client.NewPeer{
		PeerSettings: p.settings,
		KEKs:         []client.NewKEK{{Role: k.Role, Label: k.Label, Seal: client.SealHeader(header), Wrapped: k.Wrapped, MAC: k.MAC}},
	})
	return err
}

func readTransport(ctx context.Context, api *client.Client) (seal.PublicKey, error) {
	answer, err := api.TransportKey(ctx)
	if err != nil {
		return seal.PublicKey{}, err
	}
	return seal.ParsePublicKey([]byte(answer.PEM))
}

func readCertificate(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is no PEM certificate", path)
	}
	return block.Bytes, nil
}

// simConfig is sim/sim.json: the peers as the simulator plays them. Paths are
// relative to the file. It holds the peers' own copies of their KEKs.
type simConfig struct {
	JoinServer   string    `json:"joinServer"`
	ServerCA     string    `json:"serverCA"`
	NS           []simPeer `json:"ns"`
	AS           []simPeer `json:"as"`
	RecipientKey string    `json:"recipientKey"`
	Silicon      []string  `json:"silicon"`
	State        string    `json:"state"`
}

// simPeer is a Network Server, with NetID and NSID, or an Application Server,
// with ASID.
type simPeer struct {
	Name  string            `json:"name"`
	NetID *lorawan.NetID    `json:"netID,omitempty"`
	NSID  *lorawan.EUI64    `json:"nsid,omitempty"`
	ASID  string            `json:"asID,omitempty"`
	Cert  string            `json:"cert"`
	Key   string            `json:"key"`
	KEKs  map[string]string `json:"keks"`
}

func newSimConfig(joinServer string) *simConfig {
	return &simConfig{
		JoinServer: joinServer, ServerCA: filepath.Join("..", "pki", "ca.crt"),
		RecipientKey: "recipient.key", Silicon: []string{"elements.silicon"}, State: "devices.json",
	}
}

// add adds a peer with its copy of kek.
func (s *simConfig) add(p peer, kek []byte) {
	entry := simPeer{
		Name: p.name,
		Cert: filepath.Join("..", "pki", p.name+".crt"),
		Key:  filepath.Join("..", "pki", p.name+".key"),
		KEKs: map[string]string{p.kekLabel: hex.EncodeToString(kek)},
	}
	if p.role == joinery.KEKForAS {
		entry.ASID = p.settings.ASIDs[0]
		s.AS = append(s.AS, entry)
		return
	}
	entry.NetID, entry.NSID = &p.settings.NetIDs[0], &p.settings.NSIDs[0]
	s.NS = append(s.NS, entry)
}

func (l layout) writeSim(s *simConfig) error {
	return writeNew(l.path("sim", "sim.json"), 0o600, func(w io.Writer) error {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(s)
	})
}
