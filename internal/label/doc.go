// Package label draws the labels of devices: the QR code with the text that
// tr005 writes, for a terminal, as PNG and as SVG; sheets of labels as PDF; and
// lists for the programs of label printers.
//
// Codes have error correction, the quiet zone of four modules that readers need,
// and their modules are drawn as shapes in PDF and SVG, so that they are as sharp
// as the printer. Lengths are millimetres, sizes of type points.
//
// A label holds an owner token. Errors of this package never repeat one; whoever
// writes a drawing to a file lets nobody else read it.
package label
