package command

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"joinery/internal/sim/device"
	"joinery/internal/sim/lab"
)

func newDevices() *cobra.Command {
	var (
		c           common
		from, limit int
	)
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the simulated elements and their state",
		Example: `  joinsim devices --config demo/sim/sim.json
  joinsim devices --limit 0 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from < 0 || limit < 0 {
				return errors.New("--from, --limit: want 0 or more")
			}
			return c.withLab(func(l *lab.Lab) error {
				list, total, err := l.List(from, limit)
				if err != nil {
					return err
				}
				if c.json {
					return printDevicesJSON(cmd.OutOrStdout(), list, total)
				}
				return printDevices(cmd.OutOrStdout(), list, total)
			})
		},
	}
	c.register(cmd)
	cmd.Flags().IntVar(&from, "from", 0, "index of the first to list")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to list, 0 for all")
	return cmd
}

func printDevicesJSON(out io.Writer, list []lab.Listed, total int) error {
	b, err := json.Marshal(struct {
		Total   int          `json:"total"`
		Devices []lab.Listed `json:"devices"`
	}{total, list}, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, '\n'))
	return err
}

func printDevices(out io.Writer, list []lab.Listed, total int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INDEX\tDEVEUI\tJOINEUI\tUNIQUE ID\tLORAWAN\tDEVNONCES\tJOINNONCE\tSESSION")
	for _, d := range list {
		version, nonces, joinNonce, session := "-", "-", "-", "never used"
		if d.Record != nil {
			s := d.Record.Device
			version, joinNonce = s.MACVersion.String(), fmt.Sprint(s.JoinNonce)
			nonces = fmt.Sprintf("%d used", len(s.UsedDevNonces))
			if s.MACVersion.CountsDevNonces() {
				nonces = fmt.Sprintf("next %d", s.NextDevNonce)
			}
			session = describeSession(s.Session)
		}
		fmt.Fprintf(w, "%d\t%v\t%v\t%s\t%s\t%s\t%s\t%s\n", d.Index, d.DevEUI, d.JoinEUI, d.UniqueID, version, nonces, joinNonce, session)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if len(list) < total {
		if _, err := fmt.Fprintf(out, "%d of %d elements; --from and --limit show more\n", len(list), total); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	return nil
}

func describeSession(s *device.Session) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("NetID %v, DevAddr %v, LoRaWAN %s, by %v", s.NetID, s.DevAddr, layout(s.OptNeg), s.Type)
}
