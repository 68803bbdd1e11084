// Package tr005 reads and writes the text of the QR code on a LoRaWAN device,
// as LoRa Alliance TR005 ("LoRaWAN Device Identification QR Codes") defines it.
//
// The final form and three older ones are read and written:
//
//	Final       LW:D0:JoinEUI:DevEUI:ProfileID{:element}
//	Draft2      URN:LW:DP:JoinEUI:DevEUI:ProfileID[:{%element}]
//	Draft3      URN:DEV:LW:JoinEUI_DevEUI_ProfileID{_element}
//	BareDevEUI  DevEUI
//
// EUIs are 16 hexadecimal digits, most significant first. ProfileID is eight:
// VendorID, then the vendor's own number of the product. An element is one
// letter and its value: O (V in the drafts) the owner token, S the serial
// number, P whatever the vendor wants; C, in the final form only, is a checksum
// over all that stands before it, and over nothing behind it: Label.Unchecked says
// what that was. It finds what was misread; it is no signature, and whoever alters a
// label can compute it anew.
//
// Whoever holds the owner token can claim the device, so the text of a label is
// a secret until then: errors never repeat what was read, and a Label prints
// itself without its token.
package tr005
