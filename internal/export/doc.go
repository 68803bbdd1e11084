// Package export is the rules by which root keys leave this server: to their owner,
// or to another Joinery that their owner chose.
//
// An organisation registers the public keys of recipients. It asks for an export of
// its devices to one of them; another person approves exactly that set and that key
// where the organisation's policy says so. Then the custody process, which alone can
// open keys, fetches the devices one page after another and hands in what only the
// recipient opens. With each such device the disclosure is written down, before
// anybody can have it, and never forgotten. The organisation downloads and
// acknowledges, and what was wrapped is deleted.
//
// Nothing else is in the way of an export: no service term, no suspension.
package export
