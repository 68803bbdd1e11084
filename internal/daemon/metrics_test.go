package daemon

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Alert rules speak of metrics that there are.
func TestAlertsNameMetrics(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	logMetrics{}.Describe(descs)
	close(descs)
	var known []string
	for d := range descs {
		known = append(known, strings.Split(d.String(), `"`)[1])
	}
	named := regexp.MustCompile(`joinery_[a-z_]+`).FindAllString(string(rules), -1)
	for _, name := range named {
		if !slices.Contains(known, name) {
			t.Errorf("an alert is about %s, which is no metric", name)
		}
	}
	if len(named) < 5 {
		t.Errorf("only %d metrics are named", len(named))
	}
}
