// Package fleet keeps what the server serves: devices, the peers that ask for
// them, the KEKs shared with peers, the JoinEUI ranges, the signers of
// manifests, the organisations and their roaming rules.
//
// Every call takes the Caller. Peers, KEKs, ranges, signers, resets and new
// organisations are the operator's; devices and roaming belong to the
// organisation that owns the device. What belongs to another organisation is
// answered exactly as if it did not exist. Every change carries its audit entry
// into the transaction that makes it.
//
// Directory is what the server knows of peers at this moment, in memory: which
// peer a certificate leads to, which KEK wraps now. It is read again after each
// change, so a change counts from the next request on, also on connections that
// are open already.
package fleet
