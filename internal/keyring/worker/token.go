package worker

// TokenConfig is what the server tells joinery-hsm: which hardware token to open,
// and how. There is no secret in it: the PIN is read by joinery-hsm alone.
type TokenConfig struct {
	Module        string `json:"module"`
	InitArgs      string `json:"initArgs,omitempty"`
	Token         string `json:"token"`
	PINFile       string `json:"pinFile,omitempty"`
	PINCredential string `json:"pinCredential,omitempty"`
	Sessions      int    `json:"sessions"`
	PerMinute     int    `json:"perMinute"`
	AuditFile     string `json:"auditFile,omitempty"`
	MinimumLevel  string `json:"minimumLevel"`
	LogLevel      string `json:"logLevel"`
	LogFormat     string `json:"logFormat"`
}
