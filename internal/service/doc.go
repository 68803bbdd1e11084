// Package service is the activation service: until when joins of a device are
// answered, on what terms, and what happened, for whoever writes bills. Nothing
// here takes money.
//
// A term is looked at when a device joins, and at no other time: whoever let the
// service lapse exports, rekeys, transfers, releases and reads as before.
package service
