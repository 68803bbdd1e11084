package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

// checkFlags say as whom 'peer check' connects, and where.
type checkFlags struct {
	url, cert, key, ca         string
	netID, nsid, asID, joinEUI string
}

// finding is one step of a check.
type finding struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// errCheck says that a check found something wrong, which was said already.
var errCheck = errors.New("something is wrong; see above")

func (a *app) peerCheckCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check --url URL --cert FILE --key FILE --ca FILE (--net-id NETID | --as-id ASID)",
		Short: "Connect to the Backend Interfaces as a peer would, and say what is wrong",
		Long: `Connect to the Backend Interfaces listener with a peer's own certificate and key, and
say in words what is wrong: the address, the server's certificate, the client
certificate, or the names under which the peer speaks. It asks one harmless question,
which joins nothing: a HomeNSReq as a Network Server, an AppSKeyReq for a session that
does not exist as an Application Server.

Where the management API is at hand it also says which peer the certificate is taken
for. With --join-eui it checks that this JoinEUI is served.`,
		Example: `  joinctl peer check --url https://js.example.com:8443 --ca pki/ca.crt \
      --cert pki/ns.crt --key pki/ns.key --net-id 000013 --join-eui 70B3D57ED0000000
  joinctl peer check --url https://js.example.com:8443 --ca pki/ca.crt \
      --cert pki/as.crt --key pki/as.key --as-id as.example.com`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := newProbe(f)
		if err != nil {
			return err
		}
		findings := append(a.identify(cmd.Context(), p.leaf), p.run(cmd.Context())...)
		return a.showFindings(findings)
	}
	fl := c.Flags()
	fl.StringVar(&f.url, "url", "", "address of the Backend Interfaces, as https://js.example.com:8443")
	fl.StringVar(&f.cert, "cert", "", "PEM file of the peer's certificate, with its chain")
	fl.StringVar(&f.key, "key", "", "PEM file of the peer's private key")
	fl.StringVar(&f.ca, "ca", "", "PEM file of the CA that the server's certificate is under (default: the system's)")
	fl.StringVar(&f.netID, "net-id", "", "check as the Network Server of this NetID")
	fl.StringVar(&f.nsid, "nsid", "", "and of this NSID (Backend Interfaces 1.1)")
	fl.StringVar(&f.asID, "as-id", "", "check as the Application Server of this AS-ID")
	fl.StringVar(&f.joinEUI, "join-eui", "", "also check that this JoinEUI is served")
	for _, name := range []string{"url", "cert", "key"} {
		require(c, name)
	}
	return c
}

func (a *app) showFindings(findings []finding) error {
	wrong := false
	for _, f := range findings {
		wrong = wrong || !f.OK
	}
	err := a.show(findings, func() error {
		for _, f := range findings {
			mark := "ok   "
			if !f.OK {
				mark = "WRONG"
			}
			if err := a.printf("%s  %-18s %s\n", mark, f.Step, clean(f.Detail)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && wrong {
		return errCheck
	}
	return err
}

// identify says, where the management API is at hand, which peer a certificate
// leads to. It is a help and no proof: the server's own answer is.
func (a *app) identify(ctx context.Context, leaf *x509.Certificate) []finding {
	api, err := a.connect(ctx)
	if err != nil {
		return nil
	}
	defer api.Close()
	peers, err := api.Peers(ctx)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	pin := hex.EncodeToString(sum[:])
	for _, p := range peers {
		for _, c := range p.Credentials {
			if credentialFits(c, leaf, pin) {
				return []finding{{"identity", !p.Suspended, describePeer(p)}}
			}
		}
	}
	return []finding{{"identity", false, fmt.Sprintf("no peer has this certificate (its public key has SHA-256 %s); 'joinctl peer add' or 'joinctl peer change --add --cert'", pin)}}
}

func describePeer(p client.Peer) string {
	text := fmt.Sprintf("%s: NetIDs %s, NSIDs %s, AS-IDs %s", p.Name, orDash(joined(p.NetIDs)), orDash(joined(p.NSIDs)), orDash(joined(p.ASIDs)))
	if p.Suspended {
		text += "; it is SUSPENDED ('joinctl peer change --suspended=false')"
	}
	return text
}

// credentialFits tells whether a certificate is recognised by a credential, as
// far as one certificate alone shows it: intermediates are not looked at.
func credentialFits(c client.Credential, leaf *x509.Certificate, pin string) bool {
	if c.Kind == "spki" {
		return strings.EqualFold(c.SPKI, pin)
	}
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil || leaf.CheckSignatureFrom(ca) != nil {
		return false
	}
	if c.Kind == "ca" {
		return true
	}
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, c.SAN) {
			return true
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == c.SAN {
			return true
		}
	}
	return false
}

// probe is one check of a peer's connection.
type probe struct {
	flags   checkFlags
	url     *url.URL
	leaf    *x509.Certificate
	tls     *tls.Config
	netID   lorawan.NetID
	joinEUI lorawan.EUI64
}

func newProbe(f checkFlags) (*probe, error) {
	p := &probe{flags: f}
	var err error
	if p.url, err = url.Parse(f.url); err != nil || p.url.Scheme != "https" || p.url.Host == "" {
		return nil, usagef("--url: want https://HOST:PORT")
	}
	if (f.netID == "") == (f.asID == "") {
		return nil, usagef("give --net-id or --as-id: as whom to check")
	}
	if f.netID != "" {
		if p.netID, err = lorawan.ParseNetID(f.netID); err != nil {
			return nil, usagef("--net-id: %w", err)
		}
	}
	if f.nsid != "" {
		if _, err = lorawan.ParseEUI64(f.nsid); err != nil {
			return nil, usagef("--nsid: %w", err)
		}
	}
	if f.joinEUI != "" {
		if p.joinEUI, err = lorawan.ParseEUI64(f.joinEUI); err != nil {
			return nil, usagef("--join-eui: %w", err)
		}
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key of the peer: %w", err)
	}
	p.leaf = pair.Leaf
	p.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ServerName: p.url.Hostname()}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("CA of the server: %w", err)
		}
		p.tls.RootCAs = x509.NewCertPool()
		if !p.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA of the server: %s holds no PEM certificate", f.ca)
		}
	}
	return p, nil
}

// checkTimeout bounds each step of a check.
const checkTimeout = 10 * time.Second

// run takes the steps one by one and stops at the first that is wrong.
func (p *probe) run(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, 3*checkTimeout)
	defer cancel()
	out := []finding{p.ownCertificate()}
	address := p.url.Host
	if p.url.Port() == "" {
		address = net.JoinHostPort(p.url.Hostname(), "443")
	}
	conn, err := (&net.Dialer{Timeout: checkTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return append(out, finding{"connection", false, fmt.Sprintf("%v: is that the host and port of the Backend Interfaces?", err)})
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * checkTimeout)) // a TCP connection takes deadlines
	out = append(out, finding{"connection", true, "reached " + conn.RemoteAddr().String()})
	secured := tls.Client(conn, p.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		return append(out, finding{"TLS", false, p.explainTLS(err)})
	}
	server := secured.ConnectionState().PeerCertificates[0]
	out = append(out, finding{"TLS", true, fmt.Sprintf("%s, server certificate valid to %s",
		tls.VersionName(secured.ConnectionState().Version), server.NotAfter.Format("2006-01-02"))})
	return append(out, p.ask(ctx, secured)...)
}

func (p *probe) ownCertificate() finding {
	now := time.Now()
	switch {
	case now.After(p.leaf.NotAfter):
		return finding{"own certificate", false, "it expired on " + p.leaf.NotAfter.Format("2006-01-02")}
	case now.Before(p.leaf.NotBefore):
		return finding{"own certificate", false, "it is valid only from " + p.leaf.NotBefore.Format("2006-01-02") + " on; is the clock right?"}
	}
	return finding{"own certificate", true, fmt.Sprintf("%s, valid to %s", p.leaf.Subject, p.leaf.NotAfter.Format("2006-01-02"))}
}

// explainTLS says which side refused the other's certificate.
func (p *probe) explainTLS(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the server's certificate is under a CA that is not trusted here: give its CA with --ca"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return e.Error() + ": connect by a name that is in the server's certificate"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "the server's certificate is not valid: " + e.Error()
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return e.Msg + ": what answers there does not speak TLS"
	}
	if refusedByServer(err) {
		return "the server refuses this client certificate: no peer has it; its log names its SHA-256 ('handshake refused')"
	}
	return err.Error()
}

// refusedByServer tells whether an error is the server's alert.
func refusedByServer(err error) bool {
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// ask puts the harmless question. With TLS 1.3 a server refuses a client
// certificate only here, after the client's handshake.
func (p *probe) ask(ctx context.Context, conn net.Conn) []finding {
	body, err := json.Marshal(p.question())
	if err != nil {
		return []finding{{"question", false, err.Error()}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), bytes.NewReader(body))
	if err != nil {
		return []finding{{"question", false, err.Error()}}
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return []finding{{"client certificate", false, p.explainTLS(err)}}
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Result struct{ ResultCode, Description string }
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || json.Unmarshal(text, &answer) != nil || answer.Result.ResultCode == "" {
		return []finding{{"question", false, fmt.Sprintf("HTTP %d, and no answer of the Backend Interfaces: is that their address?", res.StatusCode)}}
	}
	out := []finding{{"client certificate", res.StatusCode != http.StatusForbidden, "the server knows the peer by it"}}
	if !out[0].OK {
		out[0].Detail = "the server knows no peer by it (any more): " + answer.Result.Description
		return out
	}
	return append(out, p.judge(answer.Result.ResultCode, answer.Result.Description)...)
}

// question is a HomeNSReq (TS002-1.0 §12), or an AppSKeyReq, about a device
// that does not exist.
func (p *probe) question() map[string]any {
	q := map[string]any{
		"ProtocolVersion": "1.0", "TransactionID": 1, "MessageType": "HomeNSReq", "SenderID": p.netID.String(),
		"ReceiverID": p.joinEUI.String(), "DevEUI": "FFFFFFFFFFFFFFFF",
	}
	if p.flags.nsid != "" {
		q["ProtocolVersion"], q["SenderNSID"] = "1.1", strings.ToUpper(p.flags.nsid)
	}
	if p.flags.asID != "" {
		q["MessageType"], q["SenderID"], q["SessionKeyID"] = "AppSKeyReq", p.flags.asID, strings.Repeat("00", 16)
	}
	return q
}

// judge says what a result code means for the names that were used. The server
// looks at the sender before the receiver, and at both before the device.
func (p *probe) judge(code, description string) []finding {
	who := "NetID " + p.netID.String()
	if p.flags.nsid != "" {
		who += " with NSID " + strings.ToUpper(p.flags.nsid)
	}
	if p.flags.asID != "" {
		who = "AS-ID " + p.flags.asID
	}
	switch code {
	case "UnknownSender":
		return []finding{{"names", false, fmt.Sprintf("%s is not this certificate's: 'joinctl peer change' says under which names the peer speaks (%s)", who, description)}}
	case "UnkownReceiver", "UnknownReceiver": // TS002 misspells it in its table
		out := []finding{{"names", true, who + " is accepted"}}
		if p.flags.joinEUI != "" {
			out = append(out, finding{"JoinEUI", false, p.joinEUI.String() + " is not served here: 'joinctl range list'"})
		}
		return out
	case "NoRoamingAgreement", "UnknownDevEUI", "ActivationDisallowed", "DevRoamingDisallowed", "Success":
		out := []finding{{"names", true, who + " is accepted"}}
		if p.flags.joinEUI != "" {
			out = append(out, finding{"JoinEUI", true, p.joinEUI.String() + " is served"})
		}
		return out
	}
	return []finding{{"question", false, strings.TrimSpace(code + " " + description)}}
}
