// Package joinery holds the nouns of a LoRaWAN Join Server: the things that its
// rules speak about, who calls, and the closed set of ways in which a call can
// fail. It holds no rule and no secret: where a noun has to do with a key, it
// carries ciphertext only, and no field of it could take a key.
package joinery
