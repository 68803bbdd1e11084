package archtest

// modules lists every module of others that our programs import directly, and
// the packages that may import it. The public packages on the ground floor keep
// to the standard library, but for the JSON parser that refuses duplicate names.
var modules = map[string][]string{
	"codeberg.org/go-pdf/fpdf":            {"internal/label"},                                                                      // MIT; github.com/go-pdf/fpdf is its frozen past
	"filippo.io/age":                      {"internal/keyring/soft", "internal/backup", "internal/exportfile", "internal/signkey"}, // exportfile: an owner's own key file
	"github.com/boombuler/barcode":        {"internal/label"},                                                                      // MIT; weighs the masks of a code, as readers want
	"github.com/coreos/go-oidc/v3":        {"internal/auth"},
	"github.com/danielgtaylor/huma/v2":    {"internal/api", "internal/api/clientgen"},
	"github.com/fxamacker/cbor/v2":        {"internal/attest"},                        // MIT; evidence as COSE, which needs no more than this of it
	"github.com/go-jose/go-jose/v4":       {"internal/attest", "internal/exportfile"}, // Apache-2.0; evidence as JWT, JSON Web Encryption
	"github.com/go-json-experiment/json":  {"backend", "manifest", "internal/seal", "internal/sim", "internal/provisioning", "internal/api", "internal/ttjs", "internal/factory", "internal/exportfile", "internal/jsonlist", "internal/rekeyfile", "internal/rekey", "internal/rekeylink", "internal/firmware", "internal/evidence", "internal/attest"},
	"github.com/go-webauthn/webauthn":     {"internal/auth"},
	"github.com/google/go-cmp":            {"internal/store/storetest", "internal/keyring/keyringtest"},
	"github.com/goccy/go-yaml":            {"internal/config", "cmd/joinery"}, // the command reads plans of ceremonies
	"github.com/google/renameio/v2":       {"internal/keyring/soft", "internal/sim", "internal/store", "cmd/joinery"},
	"github.com/jackc/pgx/v5":             {"internal/store", "internal/store/storetest/pgtest"},
	"github.com/jedib0t/go-pretty/v6":     {"cmd/joinctl"},
	"github.com/klauspost/compress":       {"internal/backup"},
	"github.com/miekg/pkcs11":             {"internal/keyring/hsm"}, // BSD; cgo
	"github.com/prometheus/client_golang": {"internal/interop", "internal/api", "internal/daemon", "internal/store"},
	"github.com/schollz/progressbar/v3":   {"cmd/joinery", "cmd/joinctl"},
	"github.com/spf13/cobra":              {"cmd/joinery", "cmd/joinctl", "cmd/joinsim", "internal/manual", "internal/sim"},
	"github.com/spf13/pflag":              {"cmd/joinctl"},                                      // cobra's own: flags are walked for completion
	"golang.org/x/mod":                    {"auditlog", "internal/tlog", "internal/custodylog"}, // Merkle trees and signed notes as Go's own checksum database has them
	"golang.org/x/oauth2":                 {"internal/auth"},
	"golang.org/x/sys":                    {"internal/secret", "internal/harden", "internal/fdsync", "internal/store", "internal/auth", "internal/daemon", "internal/handover", "internal/sim/chip/bus"},
	"golang.org/x/term":                   {"cmd/joinery", "cmd/joinctl"},
	"golang.org/x/time":                   {"internal/auth"},
	"modernc.org/libc":                    {"internal/store"}, // with the next, to give SQLite its memory
	"modernc.org/sqlite":                  {"internal/store"},
	"zombiezen.com/go/sqlite":             {"internal/store"},
}

// testModules lists the modules that only tests import.
var testModules = []string{
	"github.com/chromedp/cdproto",
	"github.com/chromedp/chromedp",       // a browser
	"github.com/descope/virtualwebauthn", // authenticators
	"github.com/makiuchi-d/gozxing",      // reads our QR codes
	"github.com/rogpeppe/go-internal",
	"github.com/santhosh-tekuri/jsonschema/v6",
	"github.com/standard-webhooks/standard-webhooks/libraries", // what receivers verify with
	"github.com/tink-crypto/tink-go/v2",
	"github.com/zitadel/oidc/v3", // an OpenID provider
	"golang.org/x/tools",
	"pgregory.net/rapid",
}
