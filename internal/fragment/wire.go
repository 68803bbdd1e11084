// Package fragment is LoRaWAN's transport of large blocks in fragments, with parity in
// place of repeats (TS004, Fragmented Data Block Transport, versions 1.0.0 and 2.0.0):
// its commands, and its code. Numbers are little-endian.
package fragment

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Port is the FPort of the commands, PackageID the package's number (TS004 §2.1).
const (
	Port      = 201
	PackageID = 3
)

// Version is that of the package.
type Version uint8

// Versions of the package.
const (
	V1 Version = 1 // TS004-1.0.0
	V2 Version = 2 // TS004-2.0.0: session counter, MIC, block received
)

// CID names a command.
type CID uint8

// The commands (TS004 §3).
const (
	CIDPackageVersion CID = 0x00
	CIDStatus         CID = 0x01
	CIDSetup          CID = 0x02
	CIDDelete         CID = 0x03
	CIDBlockReceived  CID = 0x04 // version 2
	CIDData           CID = 0x08
)

// ErrCommand says that bytes are no command.
var ErrCommand = errors.New("no command of fragmented data block transport")

// Setup is FragSessionSetupReq.
type Setup struct {
	Index      uint8 // of the session, 0 to 3
	McGroups   uint8 // bit mask of multicast groups, 0 for unicast
	NbFrag     uint16
	FragSize   uint8
	AckWanted  bool // version 2: FragDataBlockReceivedReq is wanted
	AckDelay   uint8
	Padding    uint8
	Descriptor [4]byte
	// Of version 2. MIC is over the block, see MICBlock.
	SessionCnt uint16
	MIC        [4]byte
}

const (
	setupV1 = 10
	setupV2 = 16
)

// Bytes gives the command.
func (s Setup) Bytes(v Version) []byte {
	b := []byte{byte(CIDSetup), s.Index&3<<4 | s.McGroups&15}
	b = binary.LittleEndian.AppendUint16(b, s.NbFrag)
	control := s.AckDelay & 7
	if v >= V2 && s.AckWanted {
		control |= 1 << 6
	}
	b = append(append(b, s.FragSize, control, s.Padding), s.Descriptor[:]...)
	if v >= V2 {
		b = append(binary.LittleEndian.AppendUint16(b, s.SessionCnt), s.MIC[:]...)
	}
	return b
}

// Bits of FragSessionSetupAns.
const (
	SetupNoAlgorithm     = 1 << 0
	SetupNoMemory        = 1 << 1
	SetupNoIndex         = 1 << 2
	SetupWrongDescriptor = 1 << 3
	SetupReplayed        = 1 << 4 // version 2
)

// ParseSetup reads a FragSessionSetupReq. algorithm is 0 for the one there is.
// ErrCommand.
func ParseSetup(b []byte, v Version) (s Setup, algorithm uint8, err error) {
	want := 1 + setupV1
	if v >= V2 {
		want = 1 + setupV2
	}
	if len(b) != want || CID(b[0]) != CIDSetup {
		return s, 0, fmt.Errorf("%w: want a FragSessionSetupReq of %d bytes", ErrCommand, want)
	}
	s = Setup{Index: b[1] >> 4 & 3, McGroups: b[1] & 15, NbFrag: binary.LittleEndian.Uint16(b[2:]), FragSize: b[4], AckDelay: b[5] & 7, Padding: b[6]}
	copy(s.Descriptor[:], b[7:])
	if v >= V2 {
		s.AckWanted = b[5]&(1<<6) != 0
		s.SessionCnt = binary.LittleEndian.Uint16(b[11:])
		copy(s.MIC[:], b[13:])
	}
	return s, b[5] >> 3 & 7, nil
}

// SetupAnswer gives FragSessionSetupAns, with bits of what is wrong.
func SetupAnswer(index, wrong uint8) []byte {
	return []byte{byte(CIDSetup), index<<6 | wrong&0x1F}
}

// ParseSetupAnswer reads one. ErrCommand.
func ParseSetupAnswer(b []byte) (index, wrong uint8, err error) {
	if len(b) != 2 || CID(b[0]) != CIDSetup {
		return 0, 0, fmt.Errorf("%w: want a FragSessionSetupAns", ErrCommand)
	}
	return b[1] >> 6, b[1] & 0x1F, nil
}

// Data gives a DataFragment: index 2 bits, n 14 bits, data.
func Data(index uint8, n int, data []byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{byte(CIDData)}, uint16(index&3)<<14|uint16(n&MaxIndex))
	return append(b, data...)
}

// ParseData reads a DataFragment. ErrCommand.
func ParseData(b []byte) (index uint8, n int, data []byte, err error) {
	if len(b) < 4 || CID(b[0]) != CIDData {
		return 0, 0, nil, fmt.Errorf("%w: want a DataFragment", ErrCommand)
	}
	v := binary.LittleEndian.Uint16(b[1:])
	return uint8(v >> 14), int(v & MaxIndex), b[3:], nil
}

// StatusRequest gives FragSessionStatusReq; all asks devices that have the block, too.
func StatusRequest(index uint8, all bool) []byte {
	b := index & 3 << 1
	if all {
		b |= 1
	}
	return []byte{byte(CIDStatus), b}
}

// ParseStatusRequest reads one. ErrCommand.
func ParseStatusRequest(b []byte) (index uint8, all bool, err error) {
	if len(b) != 2 || CID(b[0]) != CIDStatus {
		return 0, false, fmt.Errorf("%w: want a FragSessionStatusReq", ErrCommand)
	}
	return b[1] >> 1 & 3, b[1]&1 != 0, nil
}

// Status is FragSessionStatusAns.
type Status struct {
	Index     uint8
	Received  int // up to 16383
	Missing   int // up to 255, which is that or more
	NoMemory  bool
	MICError  bool // version 2
	NoSession bool // version 2: nothing else is said
}

// Bytes gives the command. In version 1 Status stands last, in version 2 first.
func (s Status) Bytes(v Version) []byte {
	flags := byte(0)
	if s.NoMemory {
		flags |= 1
	}
	if v >= V2 && s.MICError {
		flags |= 1 << 1
	}
	if v >= V2 && s.NoSession {
		return []byte{byte(CIDStatus), 1 << 2}
	}
	counts := binary.LittleEndian.AppendUint16(nil, uint16(s.Index&3)<<14|uint16(min(s.Received, MaxIndex)))
	counts = append(counts, byte(min(s.Missing, 255)))
	if v >= V2 {
		return append([]byte{byte(CIDStatus), flags}, counts...)
	}
	return append(append([]byte{byte(CIDStatus)}, counts...), flags)
}

// ParseStatus reads a FragSessionStatusAns. ErrCommand.
func ParseStatus(b []byte, v Version) (s Status, err error) {
	if v >= V2 && len(b) == 2 && CID(b[0]) == CIDStatus && b[1]&(1<<2) != 0 {
		return Status{NoSession: true}, nil
	}
	if len(b) != 5 || CID(b[0]) != CIDStatus {
		return s, fmt.Errorf("%w: want a FragSessionStatusAns", ErrCommand)
	}
	counts, flags := b[1:4], b[4]
	if v >= V2 {
		counts, flags = b[2:5], b[1]
	}
	both := binary.LittleEndian.Uint16(counts)
	return Status{
		Index: uint8(both >> 14), Received: int(both & MaxIndex), Missing: int(counts[2]),
		NoMemory: flags&1 != 0, MICError: v >= V2 && flags&(1<<1) != 0,
	}, nil
}

// BlockReceived gives FragDataBlockReceivedReq of version 2, by which a device says
// that it has the block, and whether its MIC is wrong.
func BlockReceived(index uint8, micError bool) []byte {
	b := index & 3
	if micError {
		b |= 1 << 2
	}
	return []byte{byte(CIDBlockReceived), b}
}

// ParseBlockReceived reads one. ErrCommand.
func ParseBlockReceived(b []byte) (index uint8, micError bool, err error) {
	if len(b) != 2 || CID(b[0]) != CIDBlockReceived {
		return 0, false, fmt.Errorf("%w: want a FragDataBlockReceivedReq", ErrCommand)
	}
	return b[1] & 3, b[1]&(1<<2) != 0, nil
}

// MICBlock gives the 16 bytes that stand before the block in the MIC of version 2, the
// first four bytes of AES-CMAC(DataBlockIntKey, MICBlock ‖ block without padding):
// 49 ‖ SessionCnt 2 ‖ FragIndex 1 ‖ Descriptor 4 ‖ 4 zeros ‖ length 4. DataBlockIntKey
// is AES(root, 30 ‖ 15 zeros), root being AppKey, and GenAppKey for 1.0.x.
func (s Setup) MICBlock(length int) (b [16]byte) {
	b[0] = 0x49
	binary.LittleEndian.PutUint16(b[1:], s.SessionCnt)
	b[3] = s.Index
	copy(b[4:], s.Descriptor[:])
	binary.LittleEndian.PutUint32(b[12:], uint32(length))
	return b
}
