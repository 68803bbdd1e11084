package archtest

// The floors. Imports go down, never sideways and never up.
const (
	ground  = 0 // pure values and formats
	nouns   = 1 // what the rules speak about
	holders = 2 // hold state or keys; never import each other
	rules   = 3 // one package per reason someone calls us; never import each other
	doors   = 4 // speak a protocol and map errors
	wiring  = 5 // knows everything and contains no rule
	top     = 6 // programs
	apart   = -1
)

// room is one package of the house.
type room struct {
	floor int
	why   string // what the package is for, in one line
}

// rooms is every package of the module but those under test/, by its path in
// the module. A package that is missing here fails the tests: add it with its
// floor and a line on why it must be a package of its own.
var rooms = map[string]room{
	"lorawan":             {ground, "TS001 identifiers, MAC versions, join and rejoin frames"},
	"backend":             {ground, "TS002 messages, result codes per protocol version, KeyEnvelope"},
	"manifest":            {ground, "signed device manifests"},
	"tr005":               {ground, "the text of a label's QR code"},
	"auditlog":            {ground, "leaf encoding and proof verification: what an auditor links"},
	"internal/secret":     {ground, "a key in memory: used in a callback, never printed, wiped"},
	"internal/cmac":       {ground, "AES-CMAC over opaque blocks: the key schedule and the sealing of keys both need it, and neither imports the other"},
	"internal/fdsync":     {ground, "waits for the disk while other goroutines run: what the kernel has for it, apart from what SQLite is told"},
	"internal/harden":     {ground, "a process's memory kept out of dumps and away from debuggers; two programs hold keys"},
	"internal/seal":       {ground, "encrypt to, and open with, a transport or recipient key"},
	"internal/exportfile": {ground, "root keys on their way to their owner: recipients, the signed file, and its opening, which programs do that link no keyring"},
	"internal/webhook":    {ground, "one signed message to an address that a customer chose: checked as it is dialled, bounded"},
	"internal/backup":     {ground, "the encrypted file of a backup: written and read row by row, of whatever engine"},
	"internal/ceremony":   {ground, "the plan and the signed report of a ceremony of keys: whoever verifies one has none"},
	"internal/label":      {ground, "labels drawn: QR codes, sheets as PDF, lists; apart from tr005, which is for others to import"},

	"internal/exposure":  {ground, "what one Join Server tells the next of who could read root keys: both files in which devices travel have it, and the store remembers it"},
	"internal/jsonlist":  {ground, "counts the lists of what a stranger wrote while it is read, in both files in which devices travel"},
	"internal/rekeyfile": {ground, "the signed files of rekeying: the server, joinctl and the bench read and write them, and so may others"},

	"internal/firmware": {ground, "a maker's signed statement about a release of firmware: whoever signs images writes it, the server reads it"},
	"internal/signkey":  {ground, "the key by which a maker signs firmware, in a file under a passphrase; apart from firmware, which the server links and which needs no age"},
	"internal/fragment": {ground, "large blocks over LoRaWAN in fragments with parity, TS004: commands and code, for whoever sends or receives firmware"},
	"internal/evidence": {ground, "what devices show of themselves: messages, compact form, fragments, file; server and bench both need it"},

	"manifest/manifesttest": {ground, "manifests in the shapes of real makers, with keys of their own; apart from manifest because several packages test with them"},

	"":       {nouns, "the nouns, Caller and the closed set of error codes"},
	"client": {nouns, "the public API client and the types of the API"},

	"internal/keyring":             {holders, "custody: LoRaWAN operations on keys that nobody can fetch"},
	"internal/keyring/lwcrypto":    {holders, "the LoRaWAN key schedule over opaque block operations"},
	"internal/keyring/soft":        {holders, "the keyring's software backend: keys sealed in a file"},
	"internal/keyring/remote":      {holders, "the keyring's verbs between two processes; apart from worker, which knows of processes and not of frames"},
	"internal/keyring/manual":      {holders, "keys that an operator opens by hand after each start"},
	"internal/keyring/custody":     {holders, "a custodian in a process of its own, both halves; apart from worker, which is watched and lives as long as the server"},
	"internal/keyring/worker":      {holders, "the process that has the keys, watched: both halves, so that they stand beside each other"},
	"internal/keyring/hsm":         {holders, "the keyring's backend over a hardware token: the only package with C in it, so that no server links it"},
	"internal/keyring/hsm/hsmtest": {holders, "tokens of software for tests of several packages"},
	"internal/keyring/keyringtest": {holders, "the contract suite that every keyring backend passes"},
	"internal/store":               {holders, "state in SQLite or PostgreSQL"},
	"internal/tlog":                {holders, "the Merkle tree of the custody log grown and read; knows no database, so that its arithmetic is tested by itself"},
	"internal/store/storetest":     {holders, "the contract suite that every store passes"},

	"internal/store/storetest/sqlitetest": {holders, "a database of its own for a test of another package; apart from the suite, which the store's own tests link"},

	"internal/store/storetest/pgtest": {holders, "a PostgreSQL of its own for a test of another package"},

	"internal/activation":   {rules, "Join, Rejoin, AppSKey, HomeNS"},
	"internal/provisioning": {rules, "manifests and key lists become devices"},
	"internal/claim":        {rules, "owner token to owner; bindings"},
	"internal/fleet":        {rules, "devices, peers, KEKs: list, suspend, rotate, delete"},
	"internal/custodylog":   {rules, "the custody log: rows put into the tree, checkpoints signed, what was done with a device's keys proved to its owner"},
	"internal/events":       {rules, "the feed of events and webhooks: what owners are told of"},
	"internal/service":      {rules, "the activation service: until when joins are answered, on what terms, and what is reported; clock in doubt"},
	"internal/export":       {rules, "root keys to their owner, or another Join Server: recipients, approval by another person, the custody process's work"},
	"internal/rotation":     {rules, "imported root keys sealed anew under newer storage keys, while joins go on"},
	"internal/attest":       {rules, "evidence of elements and firmware: challenged, verified, held against signed releases; what owners want of devices"},
	"internal/rekey":        {rules, "orders to rekey: armed, sent, confirmed; tickets, hand-overs and receipts"},
	"internal/refusal":      {rules, "why requests were refused: kept off the answer path, explained to owner and operator"},
	"internal/factory":      {rules, "elements made offline: manifest and silicon file; the server never links it, the command and quickstart do"},
	"internal/auth":         {rules, "who calls: API key, session or operator socket to Caller; who belongs to what; how people sign in"},

	"internal/interop":   {doors, "Backend Interfaces over mutual TLS"},
	"internal/api":       {doors, "the management API"},
	"internal/rekeylink": {doors, "the hand-over protocol between Join Servers, both ends: the door that others call, and the calls to others"},
	"internal/ttjs":      {doors, "the API of The Things Join Server, version 2: identity, bodies and errors in its own manners, beside the management API's"},

	"internal/config":   {wiring, "the documented configuration"},
	"internal/handover": {wiring, "sockets and requests pass from a server to its successor; knows no door and no rule, so that both sides of the conversation stand beside each other"},
	"internal/daemon":   {wiring, "the server: opens, connects, runs and closes everything"},

	"internal/api/clientgen": {top, "the program that writes the calls of client from the API's document; go generate runs it and nothing links it"},

	"internal/quickstart": {top, "a complete server in one directory, made through the same doors that people use; a package so that demo and tests build the same"},
	"internal/manual":     {top, "manual pages from the help texts of the programs; a package because two programs write theirs"},
	"cmd/joinery":         {top, "the server and all that touches keys or the database"},
	"cmd/joinery-hsm":     {top, "the one process that links a hardware token's library"},
	"cmd/joinctl":         {top, "people and scripts, over the HTTP API"},
	"cmd/joinsim":         {top, "the simulator's command"},

	"internal/sim":      {apart, "device, element, NS and AS, with crypto of its own"},
	"internal/archtest": {apart, "this table"},
}

// sideways is the imports allowed between packages of one floor.
var sideways = map[string][]string{
	"backend":                      {"lorawan"},
	"manifest":                     {"lorawan"},
	"tr005":                        {"lorawan"},
	"internal/label":               {"tr005"},
	"internal/rekeyfile":           {"internal/exposure", "internal/jsonlist", "internal/seal", "lorawan"},
	"internal/evidence":            {"lorawan"},
	"internal/seal":                {"internal/cmac", "internal/secret", "lorawan"},
	"internal/exportfile":          {"internal/cmac", "internal/exposure", "internal/jsonlist", "internal/seal", "internal/secret", "lorawan"},
	"client":                       {""},
	"internal/keyring":             {"internal/keyring/lwcrypto"},
	"internal/keyring/soft":        {"internal/keyring", "internal/keyring/lwcrypto"},
	"internal/keyring/remote":      {"internal/keyring"},
	"internal/keyring/worker":      {"internal/keyring", "internal/keyring/remote"},
	"internal/keyring/custody":     {"internal/keyring"},
	"internal/keyring/manual":      {"internal/keyring"},
	"internal/keyring/hsm":         {"internal/keyring", "internal/keyring/lwcrypto"},
	"internal/keyring/hsm/hsmtest": {"internal/keyring", "internal/keyring/hsm", "internal/keyring/keyringtest"},
	"internal/keyring/keyringtest": {"internal/keyring", "internal/keyring/lwcrypto", "internal/keyring/soft"},
	"internal/store/storetest":     {"internal/store", "internal/tlog"},

	"internal/store/storetest/sqlitetest": {"internal/store"},
	"internal/daemon":                     {"internal/config", "internal/handover"},
	"cmd/joinery":                         {"internal/manual", "internal/quickstart"},
	"cmd/joinctl":                         {"internal/manual"},
}

// importers lists, for a package that must not be imported freely, all that may
// import it outside of tests. Names with a dot or of the standard library are
// import paths, others packages of this module.
var importers = map[string][]string{
	// Custody: who can hold a key, and who can ask for an operation on one.
	// ttjs is the one door that touches a key in the clear, because clients send it
	// so: a claim's KEK, decoded into this package's memory and sealed there.
	"internal/secret":           {"internal/ttjs", "internal/exportfile", "internal/seal", "internal/keyring", "internal/keyring/lwcrypto", "internal/keyring/soft", "internal/keyring/hsm"},
	"internal/seal":             {"internal/claim", "internal/exportfile", "internal/ttjs", "internal/keyring", "internal/keyring/lwcrypto", "internal/keyring/soft", "internal/keyring/remote", "internal/keyring/worker", "internal/keyring/manual", "internal/keyring/custody", "internal/keyring/keyringtest", "internal/provisioning", "internal/fleet", "internal/factory", "internal/api", "internal/daemon", "client", "cmd/joinctl", "cmd/joinery", "internal/quickstart", "internal/keyring/hsm/hsmtest", "internal/keyring/hsm", "cmd/joinery-hsm", "internal/rotation", "internal/rekey", "internal/rekeyfile"},
	"internal/keyring":          {"internal/keyring/soft", "internal/keyring/remote", "internal/keyring/worker", "internal/keyring/manual", "internal/keyring/custody", "internal/keyring/keyringtest", "internal/activation", "internal/provisioning", "internal/fleet", "internal/claim", "internal/daemon", "cmd/joinery", "cmd/joinery-hsm", "internal/keyring/hsm/hsmtest", "internal/keyring/hsm", "internal/rotation", "internal/export", "internal/rekey"},
	"internal/keyring/remote":   {"internal/keyring/worker"},
	"internal/keyring/worker":   {"internal/daemon", "cmd/joinery-hsm"},
	"internal/keyring/manual":   {"internal/daemon"},
	"internal/keyring/custody":  {"internal/daemon", "cmd/joinery-hsm"},
	"internal/keyring/lwcrypto": {"internal/keyring", "internal/keyring/soft", "internal/keyring/keyringtest", "internal/keyring/hsm"},
	"internal/keyring/soft":     {"internal/keyring/keyringtest", "internal/daemon", "cmd/joinery", "internal/quickstart"},
	"crypto/aes":                {"internal/exportfile", "internal/secret", "internal/seal", "internal/keyring/lwcrypto", "internal/keyring/soft", "internal/keyring/hsm", "internal/keyring/keyringtest", "internal/sim"},
	"crypto/cipher":             {"internal/exportfile", "internal/cmac", "internal/secret", "internal/seal", "internal/keyring", "internal/keyring/lwcrypto", "internal/keyring/soft", "internal/keyring/hsm", "internal/sim"},
	"crypto/rsa":                {"internal/keyring/keyringtest", "internal/exportfile", "internal/keyring/hsm/hsmtest", "internal/seal", "internal/keyring/soft", "internal/keyring/hsm", "internal/sim", "internal/quickstart", "internal/fleet"}, // fleet: how long a public key of a certificate is
	"runtime/secret":            {"internal/secret"},
	"filippo.io/age":            {"internal/keyring/soft", "internal/backup", "internal/exportfile", "internal/signkey"},

	"internal/backup": {"cmd/joinery"},

	// State: floor 3 reaches it through interfaces of its own.
	"internal/store": {"internal/store/storetest", "internal/store/storetest/sqlitetest", "internal/daemon", "cmd/joinery", "internal/quickstart"},

	// The suites and the simulator are linked by tests, and the simulator by its
	// own program.
	"internal/keyring/hsm":         {"internal/keyring/hsm/hsmtest", "cmd/joinery-hsm"},
	"internal/keyring/hsm/hsmtest": {},
	"internal/keyring/keyringtest": {"internal/keyring/hsm/hsmtest"},
	"internal/store/storetest":     {},
	"internal/sim":                 {"internal/sim", "cmd/joinsim"},
	"internal/archtest":            {},
	"manifest/manifesttest":        {},

	// Handlers on the default mux, and numbers that can be guessed.
	"net/http/pprof": {},
	"expvar":         {},
	"math/rand":      {},
	"math/rand/v2":   {"internal/sim"}, // DevAddrs and TransactionIDs of a simulated network
}
