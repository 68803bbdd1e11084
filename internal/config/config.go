// Package config is the configuration of a Join Server: one struct, read
// strictly from one YAML file. The comment of a field here is its
// documentation everywhere: `joinery config print` shows it above the value.
//
// There is no secret in a configuration. Where one is needed, the file says
// where it lies.
package config

import "time"

// Config is everything that `joinery serve` is told. Paths that are not
// absolute are relative to the directory of the configuration file.
type Config struct {
	// Where the state lives: devices, peers, nonces, activations, audit log.
	Database Database `yaml:"database"`
	// The master keys and storage keys, and what opens them. For a key file give
	// exactly one of passphrase_file, identity_file, credential, command and manual; there is no
	// default, so that a server never starts with a key that others know.
	Keys Keys `yaml:"keys"`
	// The door to Network Servers and Application Servers: LoRaWAN Backend
	// Interfaces over HTTPS with client certificates. Who may come in is not
	// configured here: peers are added while the server runs (`joinctl peer`).
	Interop Interop `yaml:"interop"`
	// The door to people and scripts: the management API under /api/v1.
	API API `yaml:"api"`
	// How people sign in, with a browser. Without it API keys and the operator
	// socket are the only ways in.
	SignIn SignIn `yaml:"sign_in"`
	// The door to monitoring: /metrics, /livez and /readyz, without
	// authentication and without any detail about devices.
	Ops Ops `yaml:"ops"`
	// Bounds of the interop listener, which keep one slow or huge client from
	// harming the others. The management API has bounds of its own.
	Limits Limits `yaml:"limits"`
	// Where events may be sent. Which addresses they are sent to is not configured
	// here: organisations add webhooks while the server runs (`joinctl webhook`).
	Webhooks Webhooks `yaml:"webhooks"`
	// How root keys leave that were approved to be exported (`joinctl export`).
	Export Export `yaml:"export"`
	// The custody log, which owners verify.
	Audit Audit `yaml:"audit"`
	// What is written to standard error. Keys and tokens are never logged, at
	// any level.
	Log Log `yaml:"log"`
}

// Database says where the state lives: in one SQLite file (path), or in
// PostgreSQL (url), which several servers may share. Give one of the two.
type Database struct {
	// The SQLite database. It is made by `joinery migrate --create`, never by
	// `serve`: a missing database is an error, not a new one. It needs a local
	// file system that syncs; beside it lie its write-ahead log and a lock file
	// that keeps a second server out.
	Path string `yaml:"path"`
	// The PostgreSQL database instead, 14 or newer, in libpq's form and without a
	// password: postgres://joinery@db.example.com/joinery?sslmode=verify-full.
	// Its schema is made by `joinery migrate --create` in a database that is there
	// and empty. Where it is reached over a network, say sslmode.
	URL string `yaml:"url"`
	// A file whose first line is the password for url, mode 0600. Leave it empty
	// where PostgreSQL knows the server by its user or its certificate, or where
	// PGPASSFILE names a file of passwords.
	PasswordFile string `yaml:"password_file"`
	// Say true where a failover of PostgreSQL loses no commit: the standby that
	// takes over is synchronous. Else each failover, like each restore to a point
	// in time, fences the database: joins are refused until `joinery restore
	// confirm`, because JoinNonces could be issued twice.
	TrustFailover bool `yaml:"trust_failover"`
}

// Name tells people which database is meant. There is no secret in it.
func (d Database) Name() string {
	if d.URL == "" {
		return d.Path
	}
	if _, err := parseURL("", d.URL); err != nil { // there may be one after all
		return "the PostgreSQL database"
	}
	return d.URL
}

// Keys says where the keys are: in a sealed key file, or in a hardware token.
type Keys struct {
	// What holds the keys: soft, the key file below and, while the server runs, its
	// memory; or pkcs11, the hardware token below, which never gives them out.
	Backend string `yaml:"backend"`
	// The key file made by `joinery ceremony soft`. It must be readable by the
	// server's user alone (mode 0600).
	File string `yaml:"file"`
	// A file whose first line is the passphrase of the key file, mode 0600.
	PassphraseFile string `yaml:"passphrase_file"`
	// A file with the age identity to which the key file is encrypted, mode 0600.
	IdentityFile string `yaml:"identity_file"`
	// The name of a systemd credential that holds the passphrase: the server
	// reads it from the directory that LoadCredential= or
	// LoadCredentialEncrypted= gives it.
	Credential string `yaml:"credential"`
	// A program that writes the passphrase, or an age identity, to its standard
	// output: a script around the command line of a key management service. It is
	// run without arguments, once at each start, and has 30 seconds.
	Command string `yaml:"command"`
	// true: nothing here opens the key file. The server starts sealed, is not ready
	// and refuses joins until an operator gives the passphrase or an age identity to
	// `joinctl unseal` on the operator socket, after each start.
	Manual bool `yaml:"manual"`
	// The hardware token, where the backend is pkcs11.
	PKCS11 PKCS11 `yaml:"pkcs11"`
}

// PKCS11 says which hardware token holds the keys. The server itself never opens
// it: joinery-hsm does, a process that it starts and watches.
type PKCS11 struct {
	// The path of the token's PKCS #11 library, such as
	// /usr/lib/softhsm/libsofthsm2.so.
	Module string `yaml:"module"`
	// What that library wants to be told when it starts: nothing, for most.
	InitArgs string `yaml:"init_args"`
	// The label of the token, as its ceremony gave it.
	Token string `yaml:"token"`
	// A file whose first line is the user PIN, mode 0600. joinery-hsm alone reads it.
	PINFile string `yaml:"pin_file"`
	// The name of a systemd credential that holds the PIN, instead of a file.
	PINCredential string `yaml:"pin_credential"`
	// The program joinery-hsm; empty means the one beside joinery.
	Worker string `yaml:"worker"`
	// How many operations the token is given at once; 0 is what fits how fast it
	// answers. More help where each takes long, as over a network, and harm where the
	// library works on one at a time.
	Sessions int `yaml:"sessions"`
	// How well the token must keep keys, or the server does not start: in-token
	// (root and session keys never are in a memory of ours), ecb-oracle (session
	// keys briefly are) or in-memory (root keys are for one join). The log and
	// `joinctl status` tell what the token reaches.
	MinimumLevel string `yaml:"minimum_level"`
	// How much memory joinery-hsm may have, in MiB, before another takes its place,
	// which no join notices: some libraries lose memory with every operation. 0 is
	// any.
	RecycleRSS int `yaml:"recycle_rss"`
	// How many answers with keys of one device joinery-hsm gives in a minute: joins,
	// AppSKeys and owner tokens. It limits what somebody can have who makes the
	// server ask; a device joins a few times a day. 0 is any number.
	DevicePerMinute int `yaml:"device_per_minute"`
	// A file in which joinery-hsm records each such answer before it gives it: one
	// line of JSON, on the disk. What cannot be recorded is refused. Empty: none.
	AuditFile string `yaml:"audit_file"`
}

// Backends of keys.
const (
	BackendSoft   = "soft"
	BackendPKCS11 = "pkcs11"
)

// Interop is the listener for Network Servers and Application Servers.
type Interop struct {
	// Address and port to listen on, as host:port; an empty host is all
	// addresses.
	Address string `yaml:"address"`
	// The server's certificate with its intermediates, PEM. The name or address
	// by which peers reach this server must be in it.
	Certificate string `yaml:"certificate"`
	// The private key of the certificate, PEM, mode 0600.
	Key string `yaml:"key"`
}

// API is the two listeners of the management API.
type API struct {
	// The Unix socket on which root and the server's own user are the operator
	// without a key. It is made with mode 0600.
	Socket string `yaml:"socket"`
	// Address and port for clients with an API key, as host:port; empty means
	// none. It speaks plain HTTP, so it must be a loopback address: put a TLS
	// proxy on this machine in front of it for clients from elsewhere.
	Address string `yaml:"address"`
	// The same API over TLS, for clients from elsewhere, and the only place where
	// the claims of The Things Stack are taken (under /api/v2).
	TLS APITLS `yaml:"tls"`
	// Networks of the proxies in front of this API whose X-Forwarded-For, or else
	// Forwarded, is believed, separated by spaces: 127.0.0.1/32 10.20.0.0/16. Tries to
	// sign in are then bounded by the address that a proxy names. Empty: no header is
	// believed. Name proxies alone: whoever can connect from there can say they are
	// anybody.
	TrustedProxies string `yaml:"trusted_proxies"`
}

// APITLS is the management API's listener for other machines.
type APITLS struct {
	// Address and port to listen on, as host:port; empty means none. People and
	// scripts need an API key here; Application Servers that claim devices need
	// their client certificate. A proxy that ends TLS in front of it hides who
	// they are.
	Address string `yaml:"address"`
	// The server's certificate with its intermediates, PEM. Leave it and the key
	// empty to use those of the interop listener.
	Certificate string `yaml:"certificate"`
	// The private key of the certificate, PEM, mode 0600.
	Key string `yaml:"key"`
}

// SignIn says how people sign in: with passkeys, and at an OpenID provider.
type SignIn struct {
	// The address under which browsers reach the management API, without a path:
	// https://js.example.com. Empty: nobody signs in. Passkeys belong to its host
	// name, so it cannot change later. Plain http is for this machine alone:
	// http://localhost:8444.
	URL string `yaml:"url"`
	// How long somebody stays signed in.
	Session time.Duration `yaml:"session"`
	// The OpenID provider of the people here, if there is one. Register this server
	// there as a web application with the redirect URI of url above with
	// /sign-in/callback behind it.
	OIDC OIDC `yaml:"oidc"`
}

// OIDC is an OpenID provider (OpenID Connect with discovery).
type OIDC struct {
	// The provider's issuer, exactly as its configuration has it:
	// https://accounts.example.com. Empty means no provider.
	Issuer string `yaml:"issuer"`
	// The client id that the provider gave to this server.
	ClientID string `yaml:"client_id"`
	// A file whose first line is the client secret, mode 0600. Empty for a public
	// client, which has none.
	ClientSecretFile string `yaml:"client_secret_file"`
}

// Ops is the listener for monitoring.
type Ops struct {
	// Address and port to listen on, as host:port; empty means none. Whoever
	// reaches it can read the metrics, so keep it on loopback or on a network of
	// your own.
	Address string `yaml:"address"`
}

// Limits bound what a client of the interop listener may use.
type Limits struct {
	// The longest body of a request, in bytes. A join needs less than 2,000.
	BodyBytes int `yaml:"body_bytes"`
	// The most connections held at once; more wait in the kernel's queue. Each
	// takes a file descriptor, so the service's limit must be above it. One peer
	// may hold half of them. A quarter may be in their TLS handshake, which has
	// three seconds; 64 of those from an address where no peer is connected.
	Connections int `yaml:"connections"`
	// How long a client may take for the TLS handshake and to send a request,
	// and later to receive its answer.
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// How long the server may take to find an answer before it gives "try again
	// later" as one. Network Servers give up after 5 to 10 seconds, and a
	// device's second receive window opens 6 seconds after its join-request.
	AnswerTimeout time.Duration `yaml:"answer_timeout"`
	// How long a kept-alive connection may stay without a request.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// How long a server that was told to stop goes on to take requests, while
	// /readyz says 503 and each connection ends with its next answer. Behind a load
	// balancer, a little more than it takes to notice; else 0.
	DrainDelay time.Duration `yaml:"drain_delay"`
	// How long a server that was told to stop then waits for requests in flight,
	// at every listener. A server that hands over waits as long for those of the
	// management API.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
}

// Webhooks bounds where events may be sent. Organisations choose the addresses;
// without these settings only such as the whole Internet can reach, by HTTPS.
type Webhooks struct {
	// Networks of your own that may be reached all the same, separated by spaces:
	// 10.20.0.0/16 127.0.0.1/32. Whoever may add a webhook can then have this
	// server connect to any port there, so name the receivers' networks and no more.
	AllowNetworks string `yaml:"allow_networks"`
	// Whether plain http: is allowed. Deliveries are signed either way; over http
	// whoever is between can read them.
	AllowHTTP bool `yaml:"allow_http"`
	// Certificates of CAs, PEM, that receivers may be under; empty means the
	// system's.
	CAFile string `yaml:"ca_file"`
}

// Audit is the custody log: a Merkle tree over every custody event, whose signed
// states everybody can read at the API listener under /log/.
type Audit struct {
	// The name of the log, such as log.example.com/joinery. It is taken when the log
	// begins, and stays. Empty means one made of the database's own number.
	Origin string `yaml:"origin"`
	// Witnesses (c2sp.org/tlog-witness) that are asked to sign each state of the log,
	// so that it cannot be told in two ways: the address of each, to which
	// /add-checkpoint is added, a blank and its public key, with commas between:
	// https://witness.example.com witness.example.com+1f8cd1a2+BLgA…
	Witnesses string `yaml:"witnesses"`
}

// Log is what is logged, and how.
type Log struct {
	// The least severe level that is logged: debug, info, warn or error.
	Level string `yaml:"level"`
	// How lines look: text for people, json for machines.
	Format string `yaml:"format"`
}

// Export says how approved exports get done.
type Export struct {
	// true: the server starts the custody process itself, `joinery export run`, each
	// time that an export was approved, and that process ends with it. false: exports
	// wait until the operator runs it by hand, with the custody key at hand.
	Automatic bool `yaml:"automatic"`
	// Where that process finds the custody key, to export keys that were imported.
	// Left out, it exports keys that derive from a master key alone, and the others
	// wait. The server never opens it. What is named here stays on this machine: a
	// custody key on a stick in a safe protects more, and makes exports wait for it.
	Custody Custody `yaml:"custody"`
}

// Custody says where the custody key is: in a file, or in a hardware token.
type Custody struct {
	// The custody file made by `joinery ceremony soft`, mode 0600.
	File string `yaml:"file"`
	// A file whose first line is its passphrase, mode 0600.
	PassphraseFile string `yaml:"passphrase_file"`
	// A file with the age identity to which it is encrypted, mode 0600.
	IdentityFile string `yaml:"identity_file"`
	// The path of the PKCS #11 library of the token that holds the custody key instead,
	// where the server's keys are in a token; empty means that of the server's token.
	Module string `yaml:"module"`
	// What that library wants to be told when it starts: nothing, for most.
	InitArgs string `yaml:"init_args"`
	// The label of that token, as its ceremony gave it.
	Token string `yaml:"token"`
	// A file whose first line is the PIN of the custody role, mode 0600. joinery-hsm
	// alone reads it.
	PINFile string `yaml:"pin_file"`
}

// Default gives the values of what a file leaves out. It is no complete
// configuration: how keys are unlocked and the certificate have no default.
func Default() Config {
	return Config{
		Database: Database{Path: "joinery.db"},
		Keys: Keys{
			Backend: BackendSoft, File: "keys/server.age",
			PKCS11: PKCS11{MinimumLevel: "in-token", RecycleRSS: 192, DevicePerMinute: 120},
		},
		Interop: Interop{Address: ":8443"},
		API:     API{Socket: "joinery.sock", Address: "127.0.0.1:8444"},
		SignIn:  SignIn{Session: 12 * time.Hour},
		Ops:     Ops{Address: "127.0.0.1:8445"},
		Limits: Limits{
			BodyBytes:      32 << 10,
			Connections:    8192,
			RequestTimeout: 10 * time.Second,
			AnswerTimeout:  3 * time.Second,
			IdleTimeout:    2 * time.Minute,
			DrainTimeout:   10 * time.Second,
		},
		Log: Log{Level: "info", Format: "text"},
	}
}

// paths lists every field that holds a path, for Resolve.
func (c *Config) paths() []*string {
	return []*string{
		&c.Database.Path, &c.Database.PasswordFile,
		&c.Keys.File, &c.Keys.PassphraseFile, &c.Keys.IdentityFile, &c.Keys.Command,
		&c.Keys.PKCS11.Module, &c.Keys.PKCS11.PINFile, &c.Keys.PKCS11.Worker, &c.Keys.PKCS11.AuditFile,
		&c.Interop.Certificate, &c.Interop.Key,
		&c.API.Socket, &c.API.TLS.Certificate, &c.API.TLS.Key, &c.SignIn.OIDC.ClientSecretFile, &c.Webhooks.CAFile,
		&c.Export.Custody.File, &c.Export.Custody.PassphraseFile, &c.Export.Custody.IdentityFile, &c.Export.Custody.Module, &c.Export.Custody.PINFile,
	}
}
