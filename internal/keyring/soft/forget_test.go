package soft

import "testing"

// ForgetExportKeys makes of a key file one of a version without exports.
func ForgetExportKeys(t testing.TB, keyFile string, u Unlock) {
	t.Helper()
	err := change(keyFile, u, func(c *contents) error {
		c.Export, c.ExportPublic, c.OldExports = nil, nil, nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
