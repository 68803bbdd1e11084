// Package provisioning makes devices of manifests and key lists.
//
// A file is imported in chunks of at most joinery.MaxImportRows rows, each one
// transaction of the store, so that joins are never kept waiting and memory
// stays flat whatever the size of the file. Rows fail singly and by name; the
// rest goes on.
//
// # An import
//
//  1. Begin finds the import of this file by its hash, or makes it. Crash:
//     Begin again finds it.
//  2. Rows takes the chunk that begins at the import's Next. Signatures are
//     verified on all processors, or keys sealed by the keyring, and authority
//     is checked, before anything is written. Crash: nothing happened.
//  3. The store commits the devices, the failed rows and the new Next together.
//     Crash before the answer: Status tells Next, and the client goes on there.
//
// # Authority
//
// An organisation imports into JoinEUI ranges that are assigned to it. A
// manifest's entry counts only if a pinned signer of that organisation signed
// it and may provision this JoinEUI and DevEUI; the signer also says of which
// master key and generation the roots derive, so an entry cannot. A range that
// is kept for elements takes no key lists: a key that somebody knows must not
// take the place of one that nobody does.
//
// Importing the same row again finds the device unchanged.
package provisioning
