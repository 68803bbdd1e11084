package main

import (
	"context"
	"fmt"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// deviceHelp says how devices are written, in the help of commands.
const deviceHelp = "\n\nDEVICE is JOINEUI/DEVEUI, a DevEUI alone if only one device has it, or an id (dev_…)."

// findDevice finds the one device that arg names.
func findDevice(ctx context.Context, c *client.Client, arg string) (client.Device, error) {
	if strings.HasPrefix(arg, "dev_") {
		id, err := joinery.ParseDeviceID(arg)
		if err != nil {
			return client.Device{}, usagef("device: %w", err)
		}
		return c.Device(ctx, id)
	}
	filter, err := deviceFilter(arg)
	if err != nil {
		return client.Device{}, err
	}
	var found []client.Device
	for d, err := range c.Devices(ctx, filter) {
		if err != nil {
			return client.Device{}, err
		}
		found = append(found, d)
	}
	switch len(found) {
	case 0:
		return client.Device{}, fmt.Errorf("no device %s that you may see; 'joinctl device list' lists them", describe(filter))
	case 1:
		return found[0], nil
	}
	var names []string
	for _, d := range found {
		names = append(names, deviceName(d))
	}
	return client.Device{}, usagef("several devices have that DevEUI; say which: %s", strings.Join(names, ", "))
}

func deviceName(d client.Device) string { return d.JoinEUI.String() + "/" + d.DevEUI.String() }

func describe(f client.DevicesQuery) string {
	if f.JoinEUI.IsZero() {
		return f.DevEUI
	}
	return f.JoinEUI.String() + "/" + f.DevEUI
}

// deviceFilter reads JOINEUI/DEVEUI or DEVEUI.
func deviceFilter(arg string) (f client.DevicesQuery, err error) {
	joinText, devText, both := strings.Cut(arg, "/")
	if !both {
		devText = arg
	} else if f.JoinEUI, err = lorawan.ParseEUI64(joinText); err != nil {
		return f, usagef("device: JoinEUI: %w", err)
	}
	devEUI, err := lorawan.ParseEUI64(devText)
	if err != nil {
		return f, usagef("device: want JOINEUI/DEVEUI, DEVEUI or dev_…: DevEUI: %w", err)
	}
	f.DevEUI = devEUI.String()
	return f, nil
}

// findPeer finds a peer by id or name.
func findPeer(ctx context.Context, c *client.Client, arg string) (client.Peer, error) {
	if id, err := joinery.ParsePeerID(arg); err == nil {
		return c.Peer(ctx, id)
	}
	peers, err := c.Peers(ctx)
	if err != nil {
		return client.Peer{}, err
	}
	for _, p := range peers {
		if p.Name == arg {
			return p, nil
		}
	}
	return client.Peer{}, fmt.Errorf("no peer %q that you may see; 'joinctl peer list' lists them", clean(arg))
}

// findKEK finds a KEK by id or label.
func findKEK(ctx context.Context, c *client.Client, arg string) (client.KEK, error) {
	keks, err := c.KEKs(ctx)
	if err != nil {
		return client.KEK{}, err
	}
	for _, k := range keks {
		if k.ID.String() == arg || k.Label == arg {
			return k, nil
		}
	}
	return client.KEK{}, fmt.Errorf("no KEK %q that you may see; 'joinctl kek list' lists them", clean(arg))
}

// findOrganisation finds an organisation by id or name.
func findOrganisation(ctx context.Context, c *client.Client, arg string) (joinery.OrgID, error) {
	if id, err := joinery.ParseOrgID(arg); err == nil {
		return id, nil
	}
	orgs, err := c.Organisations(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range orgs {
		if o.Name == arg {
			return o.ID, nil
		}
	}
	return 0, fmt.Errorf("no organisation %q that you may see; 'joinctl org list' lists them", clean(arg))
}
