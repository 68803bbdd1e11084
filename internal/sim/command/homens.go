package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

func newHomeNS() *cobra.Command {
	var (
		c       common
		d       deviceFlags
		p       peerFlags
		home    string
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "homens",
		Short: "Have a Network Server ask for a device's home network",
		Long: `A Network Server that heard a foreign device asks the Join Server for its home.
Only the home itself (the first ns of sim.json) and networks on the device's
roaming list are told; to any other the answer must be NoRoamingAgreement,
whether the device exists or not.`,
		Example: `  joinsim homens --ns other-ns
  joinsim homens --ns other-ns --home 000013 --expect Success`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), invocationTimeout)
			defer cancel()
			return c.withLab(func(l *lab.Lab) error {
				r, err := askHomeNS(ctx, l, &d, &p, home)
				if err != nil {
					return err
				}
				return c.finish(cmd.OutOrStdout(), r, verbose)
			})
		},
	}
	c.register(cmd)
	d.register(cmd)
	p.register(cmd)
	cmd.Flags().StringVar(&home, "home", "", "the NetID that must be named (default: that of the first ns of sim.json)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print each check on a line of its own")
	return cmd
}

func askHomeNS(ctx context.Context, l *lab.Lab, d *deviceFlags, p *peerFlags, home string) (*report, error) {
	ns, _, err := p.peers(l)
	if err != nil {
		return nil, err
	}
	dev, err := d.open(l)
	if err != nil {
		return nil, err
	}
	o := sim.HomeNSOptions{JoinEUI: dev.JoinEUI(), DevEUI: dev.DevEUI(), Expect: p.expect, HNetID: l.HomeNetID()}
	if o.Expect == "" && ns.Name() != l.HomeNS() {
		o.Expect = "NoRoamingAgreement"
	}
	if home != "" {
		if o.HNetID, err = lorawan.ParseNetID(home); err != nil {
			return nil, fmt.Errorf("--home: %w", err)
		}
	}
	h, err := ns.AskHomeNS(ctx, o)
	if err != nil {
		return nil, err
	}
	s := step{Title: fmt.Sprintf("Network %v asks for the home of device %v", ns.NetID(), o.DevEUI), Checks: h.Checks}
	s.tell("NS", "%s asks over Backend Interfaces %s", ns.Name(), ns.Protocol())
	s.tell("Join Server", "%s", outcome(h.ResultCode, h.Description))
	if h.HNetID != "" {
		s.tell("Join Server", "names network %s", h.HNetID)
	}
	r := &report{}
	r.add(s)
	return r, nil
}
