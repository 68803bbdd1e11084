package provisioning

import (
	"bytes"

	"joinery"
	"joinery/internal/exportfile"
)

const reasonExported = "the device is not as the Join Server signed it that exported it: something was changed, or taken out"

// readExported makes rows of a key list of devices that another Joinery exported,
// with what it says of them. Whose the key is that signed nobody here knows: it is
// told with what it says. A line that is not as it was signed is refused, since what
// would be taken out is what a buyer has to know. indexes are those of the rows.
func readExported(c Chunk, p *plan) (_ Chunk, indexes []uint64, told map[uint64]*joinery.Told, err error) {
	h, err := exportfile.ParseHeader(c.ExportHeader)
	if err != nil {
		return c, nil, nil, joinery.WrapError(joinery.CodeInvalid, err, "exportHeader: %s", err)
	}
	if h.Wrapping.Form != exportfile.FormSeal {
		return c, nil, nil, joinery.Errorf(joinery.CodeInvalid, "this export is for the holder of a private key: for another Join Server export to a recipient of kind join-server")
	}
	v, err := exportfile.NewVerifier(h, h.Signer.Thumbprint())
	if err != nil {
		return c, nil, nil, joinery.WrapError(joinery.CodeInvalid, err, "exportHeader: %s", err)
	}
	told = map[uint64]*joinery.Told{}
	for k, line := range c.Exported {
		index := c.From + uint64(k)
		d, err := exportfile.ParseDevice(line, h)
		if err == nil {
			err = v.Verify(d)
		}
		if err != nil {
			p.failed = append(p.failed, row{index: index, line: index + 2, joinEUI: d.JoinEUI, devEUI: d.DevEUI}.refuse(reasonExported))
			continue
		}
		if len(c.Keys) == 0 {
			c.Seal = *d.Seal
		} else if !bytes.Equal(c.Seal.Key, d.Seal.Key) || c.Seal.KID != d.Seal.KID {
			return c, nil, nil, joinery.Errorf(joinery.CodeInvalid, "devices that were not wrapped together come in requests of their own")
		}
		r := d.Row()
		r.Line = index + 2
		c.Keys, indexes = append(c.Keys, r), append(indexes, index)
		told[index] = &joinery.Told{
			Way: joinery.ToldExport, Server: h.Server, Signer: h.Signer.Thumbprint(), AsOf: h.CreatedAt(), Exposure: d.Told(h),
		}
	}
	return c, indexes, told, nil
}
