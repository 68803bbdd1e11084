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
//  2. A guess is reserved: for the caller at (JoinEUI, DevEUI), known or not, for
//     the caller at all, and for (JoinEUI, DevEUI) by all callers. Too many
//     failures within the window: refused, whatever the token. The last limit is
//     the highest, so that nobody alone can keep an owner from claiming.
//  3. The device is loaded and the token checked in the keyring; for an unknown
//     device, against a decoy. A failed claim answers the same in both cases,
//     and no sooner than a fixed time after it began.
//  4. The store makes the owner by compare-and-swap on the ownership epoch: of
//     any number of claims at once, on any number of servers, one wins. Crash
//     before: nothing happened. Crash after: the device is claimed, and the
//     same claim repeated by the same organisation says so.
//
// A binding may name an AS-ID that no peer has yet. Until its peer and KEK are
// there, joins that must wrap AppSKey for it are refused for want of a KEK; no
// key is ever sent unwrapped instead.
package claim
