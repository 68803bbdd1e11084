// Package claim makes owners and bindings.
//
// Ownership and binding are two things. The owner holds the device; a binding
// says which network may join it, which Application Server may have its
// AppSKey, and how that key may travel. A claim shows the owner token that
// stands on the device's label and makes the claimant its owner, with a binding
// if it names one; the owner binds and unbinds later without the token.
//
// # A claim
//
//  1. The request is checked by itself. Nothing was looked up.
//  2. A guess is reserved: for the caller at the DevEUI, known or not, for the
//     caller at all, and for the DevEUI by all callers. Too many failures within
//     the window: refused, whatever the token. The last limit is the highest, so
//     that nobody alone can keep an owner from claiming.
//  3. The device is loaded and the token checked in the keyring; for an unknown
//     device, against a decoy. Without a JoinEUI every device with the DevEUI is
//     tried: the token says which is meant. A failed claim answers the same in
//     all cases, and no sooner than a fixed time after it began; it is on disk
//     by then, so that a restart forgets no guess.
//  4. The store makes the owner by compare-and-swap on the ownership epoch: of
//     any number of claims at once, on any number of servers, one wins. Crash
//     before: nothing happened. Crash after: the device is claimed, and the
//     same claim repeated by the same organisation says so.
//
// A binding may name an AS-ID that no peer has yet. Until its peer and KEK are
// there, joins that must wrap AppSKey for it are refused for want of a KEK; no
// key is ever sent unwrapped instead.
//
// # From hand to hand
//
// A release leaves a device with nobody: the operator's organisation keeps it
// until the next claim, and the one answer to the release has the owner token for
// that. A transfer is an offer that its recipient accepts; until then either side
// ends it and nothing was changed. Both advance the generation of the owner token,
// so that labels and memories of the former owner open nothing, and both end the
// binding, unless its network locked it.
//
// # Disputes
//
// A network's locked binding stands until that network lets go, or the owner has
// the element sign a challenge with its device key. Whoever shows that a device
// which another holds is at hand, or knows its owner token, brings it before the
// operator, who decides: having a thing is not owning it.
//
// # Batches
//
// One act is a batch of one. Acts are judged one by one, and their changes go to
// the store together, a few dozen in a transaction, each standing or falling
// alone. An act about a device for which a change waits is judged after it.
package claim
