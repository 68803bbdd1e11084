package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"

	"joinery"
	"joinery/lorawan"
)

// AddPeer adds a peer with its names, credentials and first KEKs. CodeConflict
// where the peer's name, an AS-ID, a credential or a KEK's label is another's: no
// certificate may lead to two peers. A zero Org is the operator's.
func (d *DB) AddPeer(ctx context.Context, p joinery.Peer, keks []joinery.KEK, a ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		err := t.exec(`INSERT INTO peer (id, org, name, clear_keys, omit_session_key_id, app_s_key_at_least, disclose_devices,
			ignore_nsid, suspended, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			p.ID, t.orOperator(p.Org), p.Name, p.ClearKeys, p.OmitSessionKeyID, p.AppSKeyAtLeast, p.DiscloseDevices,
			p.IgnoreNSID, p.Suspended, p.CreatedAt)
		if err := conflict(err, "there is a peer of that name"); err != nil {
			return err
		}
		if err := t.addPeerParts(p); err != nil {
			return err
		}
		for _, k := range keks {
			if err := t.addKEK(k); err != nil {
				return err
			}
		}
		return t.finish(nil, a...)
	})
}

// ChangePeer replaces everything of a peer but its id, organisation and time of
// making. Errors are those of AddPeer, and CodeNotFound.
func (d *DB) ChangePeer(ctx context.Context, p joinery.Peer, a ...joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes(`UPDATE peer SET name = ?, clear_keys = ?, omit_session_key_id = ?, app_s_key_at_least = ?,
			disclose_devices = ?, ignore_nsid = ?, suspended = ? WHERE id = ? AND removed_at IS NULL`,
			p.Name, p.ClearKeys, p.OmitSessionKeyID, p.AppSKeyAtLeast, p.DiscloseDevices, p.IgnoreNSID, p.Suspended, p.ID)
		if err == nil && n == 0 {
			err = notFound("peer")
		}
		if err := conflict(err, "there is a peer of that name"); err != nil {
			return err
		}
		if err := t.dropPeerParts(p.ID); err != nil {
			return err
		}
		return t.finish(t.addPeerParts(p), a...)
	})
}

// SuspendPeer changes nothing of a peer but whether it is suspended.
// CodeNotFound.
func (d *DB) SuspendPeer(ctx context.Context, id joinery.PeerID, suspended bool, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE peer SET suspended = ? WHERE id = ? AND removed_at IS NULL", suspended, id)
		if err == nil && n == 0 {
			err = notFound("peer")
		}
		return t.finish(err, a)
	})
}

// RemovePeer forgets a peer's names, its credentials and what it was refused,
// and retires its KEKs. The rows of peer and KEKs stay, because activations
// refer to them; what was refused about a device stays, too, for its owner.
func (d *DB) RemovePeer(ctx context.Context, id joinery.PeerID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE peer SET removed_at = ? WHERE id = ? AND removed_at IS NULL", a.At, id)
		if err == nil && n == 0 {
			err = notFound("peer")
		}
		if err != nil {
			return err
		}
		if err := t.dropPeerParts(id); err != nil {
			return err
		}
		for _, erase := range []string{"DELETE FROM refusal_peer WHERE peer = ?", "DELETE FROM refusal_unknown WHERE peer = ?"} {
			if err := t.exec(erase, id); err != nil {
				return err
			}
		}
		return t.finish(t.exec("UPDATE kek SET retired_at = ? WHERE peer = ? AND retired_at IS NULL", a.At, id), a)
	})
}

func (t *tx) dropPeerParts(id joinery.PeerID) error {
	if err := t.exec("DELETE FROM peer_identity WHERE peer = ?", id); err != nil {
		return err
	}
	return t.exec("DELETE FROM peer_credential WHERE peer = ?", id)
}

func (t *tx) addPeerParts(p joinery.Peer) error {
	identity := func(kind, name string) error {
		err := t.exec("INSERT INTO peer_identity (peer, kind, name) VALUES (?, ?, ?)", p.ID, kind, name)
		return conflict(err, "%s %s is listed twice, or is another peer's", kind, name)
	}
	for _, n := range p.NetIDs {
		if err := identity("net-id", n.String()); err != nil {
			return err
		}
	}
	for _, n := range p.NSIDs {
		if err := identity("ns-id", n.String()); err != nil {
			return err
		}
	}
	for _, n := range p.ASIDs {
		if err := identity("as-id", n); err != nil {
			return err
		}
	}
	for i, c := range p.Credentials {
		if err := t.addCredential(p.ID, i, c); err != nil {
			return err
		}
	}
	return nil
}

// addCredential stores one credential and sees to it that a CA which belongs to
// one peer alone is not used by another, in either order.
func (t *tx) addCredential(peer joinery.PeerID, idx int, c joinery.Credential) error {
	const taken = "a credential is listed twice, or leads to another peer"
	var spki, san any
	switch c.Kind {
	case joinery.CredentialSPKI:
		spki, c.CA = c.SPKI, nil
	case joinery.CredentialCASAN:
		san = c.SAN
	case joinery.CredentialCA:
	default:
		return joinery.Errorf(joinery.CodeInvalid, "credential: unknown kind")
	}
	err := t.exec("INSERT INTO peer_credential (peer, idx, kind, spki, ca, san) VALUES (?, ?, ?, ?, ?, ?)", peer, idx, c.Kind, spki, c.CA, san)
	if err != nil {
		return conflict(err, taken)
	}
	clash, err := t.integer("SELECT count(*) FROM peer_credential WHERE ca = ?1 AND peer <> ?2 AND (kind = 'ca' OR ?3 = 'ca')", c.CA, peer, c.Kind)
	if err == nil && clash > 0 {
		err = joinery.Errorf(joinery.CodeConflict, taken)
	}
	return err
}

// Peers gives every peer that was not removed, in the order of their making.
func (d *DB) Peers(ctx context.Context) (peers []joinery.Peer, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		peers, err = c.peers()
		return err
	})
	return peers, err
}

func (c conn) peers() (peers []joinery.Peer, err error) {
	err = c.each(`SELECT id, org, name, clear_keys, omit_session_key_id, app_s_key_at_least, disclose_devices, ignore_nsid,
			suspended, created_at FROM peer WHERE removed_at IS NULL ORDER BY id`, func(r *row) error {
		peers = append(peers, joinery.Peer{
			ID: joinery.PeerID(r.int()), Org: joinery.OrgID(r.int()), Name: r.text(), ClearKeys: r.bool(), OmitSessionKeyID: r.bool(),
			AppSKeyAtLeast: joinery.AppSKeyPolicy(r.int()), DiscloseDevices: r.bool(), IgnoreNSID: r.bool(), Suspended: r.bool(), CreatedAt: r.time(),
		})
		return nil
	})
	if err == nil {
		err = c.readIdentities(peers)
	}
	if err == nil {
		err = c.readCredentials(peers)
	}
	return peers, err
}

// findPeer finds a peer among peers, which are sorted by id.
func findPeer(peers []joinery.Peer, id joinery.PeerID) *joinery.Peer {
	i, found := slices.BinarySearchFunc(peers, id, func(p joinery.Peer, id joinery.PeerID) int { return cmp.Compare(p.ID, id) })
	if !found {
		return nil
	}
	return &peers[i]
}

func (c conn) readIdentities(peers []joinery.Peer) error {
	return c.each("SELECT peer, kind, name FROM peer_identity ORDER BY peer, kind, name", func(r *row) (err error) {
		p := findPeer(peers, joinery.PeerID(r.int()))
		kind, name := r.text(), r.text()
		switch {
		case p == nil:
		case kind == "as-id":
			p.ASIDs = append(p.ASIDs, name)
		case kind == "net-id":
			var n lorawan.NetID
			n, err = lorawan.ParseNetID(name)
			p.NetIDs = append(p.NetIDs, n)
		default:
			var n lorawan.EUI64
			n, err = lorawan.ParseEUI64(name)
			p.NSIDs = append(p.NSIDs, n)
		}
		return err
	})
}

func (c conn) readCredentials(peers []joinery.Peer) error {
	return c.each("SELECT peer, kind, spki, ca, san FROM peer_credential ORDER BY peer, idx", func(r *row) error {
		p := findPeer(peers, joinery.PeerID(r.int()))
		cred := joinery.Credential{Kind: joinery.CredentialKind(r.text())}
		var spki [sha256.Size]byte
		r.into(spki[:])
		cred.SPKI, cred.CA, cred.SAN = spki, r.blob(), r.text()
		if p != nil {
			p.Credentials = append(p.Credentials, cred)
		}
		return nil
	})
}
