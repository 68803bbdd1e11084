// Package events is what owners are told of: the feed of events, read by cursor,
// and webhooks, to which the same events are sent.
//
// The feed is no table that somebody has to remember to write to. Joins, custody
// events and imports are rows of their own, each in the transaction of its
// effect; the store names them, in the order of their commits, in pages. So
// nothing is told before it is durable, and nothing that is durable is left out.
//
// A webhook has one place in the feed. Events behind it are sent in the feed's
// order, a device's one after another and several devices' at once, and the place
// moves when they were taken. A server that dies between has another, or its next
// start, begin again at that place: what was taken but not noted comes once more,
// with the id that it had.
package events
