// Package sim plays the other side of a Join Server: a Network Server and an
// Application Server that speak Backend Interfaces (TS002) over mutual TLS, for
// the devices of package device and their elements. It checks every answer as
// each of the three would, field by field and key by key, and gives the checks
// back as a list, so that a story can be told and a test can assert.
//
// All of it is written apart from the server: own cryptography, own messages,
// own strict reading of JSON. What the two agree on, they agree on because the
// specifications say so. Only joinsim and tests link this package and those
// below it:
//
//	aesmode   AES-CMAC and AES key wrap
//	element   a secure element: keys go in, results come out
//	chip      the ATECC608 emulated: commands and policies; below it its bus, its
//	          memory in a file, many of them, LoRaWAN's use of it, trials of firmware
//	device    an end-device's activation, 1.0.0 to 1.1
//	silicon   files with the keys of elements, sealed to the simulator
//	lab       sim.json and devices.json: peers and devices across invocations
//	load      many devices over many connections, measured
//	command   the commands of joinsim
//	simtest   what its tests share
package sim
