// Package handover moves the work of a running server to its successor on the
// same machine, without a client that notices.
//
// Both speak over a Unix socket beside the operator socket. The successor, with
// everything open that needs no database, asks for the listening sockets and
// gets them as descriptors. Then it either serves at once, where two servers may
// share a database, or asks the other to yield it: the running one accepts
// nothing more (the kernel keeps who connects), lets what is in flight finish,
// closes the database and says so. Once the successor serves, whatever still
// arrives on connections of the old server is relayed to it, each connection
// ends with its next answer, and the old server ends with its last connection.
//
// Until it yielded, the old server loses nothing when the successor fails: it
// goes on. After that it opens the database again, and goes on as well.
//
//	successor                          running server
//	hello(database)              →
//	                             ←     sockets(names, descriptors) | refused(reason)
//	yield                        →                                     only where the database is exclusive
//	                             ←     yielded
//	working                      →                                     every few seconds, while it migrates
//	serving(one descriptor)      →                                     what to relay goes through it
package handover
