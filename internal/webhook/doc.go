// Package webhook sends one message to an address that a customer chose, by the
// Standard Webhooks specification (https://www.standardwebhooks.com).
//
// Whoever chooses the address must not reach through us what only we can reach.
// So the address that is looked at is the one that is dialled, after names are
// resolved and for every try; redirects are answers like any other that is no
// success; no proxy is used; and time and size are bounded.
package webhook
