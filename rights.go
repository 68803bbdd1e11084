package joinery

import (
	"slices"
	"strings"
)

// Right is leave to do one sort of thing. The set is closed; a right's text is
// the scope of an API key, and stands in the database.
type Right string

// The rights.
const (
	RightDevicesRead   Right = "devices:read"   // devices, their activations, refusals and imports
	RightDevicesWrite  Right = "devices:write"  // suspend, resume, reset nonces, delete
	RightDevicesImport Right = "devices:import" // bring devices in
	RightDevicesOwn    Right = "devices:own"    // claim, release, transfer
	RightDevicesBind   Right = "devices:bind"   // which network and Application Server may have a device
	RightTokensRead    Right = "tokens:read"    // owner tokens, labels that hold them
	RightPeersRead     Right = "peers:read"     // networks, Application Servers, KEKs, roaming
	RightPeersWrite    Right = "peers:write"    // change those
	RightOrgRead       Right = "org:read"       // organisations, their ranges and signers
	RightPeopleRead    Right = "people:read"    // who belongs to an organisation
	RightPeopleWrite   Right = "people:write"   // invite, change roles, remove
	RightKeysRead      Right = "keys:read"      // API keys, without their secrets
	RightKeysWrite     Right = "keys:write"     // make and revoke API keys
	RightEventsRead    Right = "events:read"    // the feed of events
	RightEventsWrite   Right = "events:write"   // where events are sent
	RightAuditRead     Right = "audit:read"     // the log of custody events
	RightServiceExtend Right = "service:extend" // spend the organisation's credit on the service of its devices
	RightExportRequest Right = "export:request" // have root keys exported, and say to which keys
	RightExportApprove Right = "export:approve" // approve exports of others, and say when that is needed; a person only
	RightServerWrite   Right = "server:write"   // what only the server's operator changes: organisations, ranges, signers
)

// rightsInOrder is every right; the place of one is its bit in Rights, in memory
// only.
var rightsInOrder = []Right{
	RightDevicesRead, RightDevicesWrite, RightDevicesImport, RightDevicesOwn, RightDevicesBind, RightTokensRead,
	RightPeersRead, RightPeersWrite, RightOrgRead, RightPeopleRead, RightPeopleWrite,
	RightKeysRead, RightKeysWrite, RightEventsRead, RightEventsWrite, RightAuditRead, RightServiceExtend, RightExportRequest, RightExportApprove, RightServerWrite,
}

// AllRightsInOrder lists every right, in the order in which people read them.
func AllRightsInOrder() []Right { return slices.Clone(rightsInOrder) }

// Rights is a set of rights; the zero value is none.
type Rights uint64

// RightsOf makes a set. A text that is no right adds nothing.
func RightsOf(list ...Right) (set Rights) {
	for _, r := range list {
		if i := slices.Index(rightsInOrder, r); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// AllRights is every right.
func AllRights() Rights { return RightsOf(rightsInOrder...) }

// Has tells whether r is in the set.
func (s Rights) Has(r Right) bool { one := RightsOf(r); return one != 0 && s&one == one }

// Contains tells whether all of o is in the set.
func (s Rights) Contains(o Rights) bool { return s&o == o }

// List gives the rights in order.
func (s Rights) List() (list []Right) {
	for _, r := range rightsInOrder {
		if s.Has(r) {
			list = append(list, r)
		}
	}
	return list
}

// String gives the rights with spaces between, the form in which they are stored.
func (s Rights) String() string { return words(s.List()) }

// ParseRights reads what String gave. Words that this program does not know give
// no right: a newer one wrote them.
func ParseRights(text string) Rights { return RightsOf(fields[Right](text)...) }

// Role is what a person may do in an organisation. The set is closed.
type Role string

// The roles, the least first. Each has all that the one before it has.
const (
	RoleViewer Role = "viewer" // sees everything but owner tokens, changes nothing
	RoleMember Role = "member" // does the daily work with devices, and makes API keys for it
	RoleAdmin  Role = "admin"  // also says who belongs to the organisation
)

// Roles lists the roles, the least first.
func Roles() []Role { return []Role{RoleViewer, RoleMember, RoleAdmin} }

// Rights gives what a role may do, in an organisation that may do everything; of
// no role, nothing.
func (r Role) Rights() Rights {
	viewer := RightsOf(RightDevicesRead, RightPeersRead, RightOrgRead, RightPeopleRead, RightKeysRead, RightEventsRead, RightAuditRead)
	member := viewer | RightsOf(RightDevicesWrite, RightDevicesImport, RightDevicesOwn, RightDevicesBind, RightTokensRead, RightKeysWrite, RightEventsWrite, RightServiceExtend, RightExportRequest)
	switch r {
	case RoleViewer:
		return viewer
	case RoleMember:
		return member
	case RoleAdmin:
		return AllRights()
	}
	return 0
}

// OrgKind is a part that an organisation plays. One may play several. The set is
// closed.
type OrgKind string

// The kinds of organisations.
const (
	KindElementMaker    OrgKind = "element-maker"    // makes secure elements and signs their manifests
	KindDeviceMaker     OrgKind = "device-maker"     // imports manifests, labels devices
	KindDistributor     OrgKind = "distributor"      // holds devices on their way to an owner
	KindOwner           OrgKind = "owner"            // claims devices and says which network may have them
	KindNetworkOperator OrgKind = "network-operator" // runs a network, whose peers are its own
	KindServerOperator  OrgKind = "server-operator"  // runs this Join Server
)

// OrgKindsInOrder lists every kind.
func OrgKindsInOrder() []OrgKind {
	return []OrgKind{KindElementMaker, KindDeviceMaker, KindDistributor, KindOwner, KindNetworkOperator, KindServerOperator}
}

// Rights gives what a kind lets the people and API keys of an organisation do.
// All see what is their organisation's, and say who belongs to it.
func (k OrgKind) Rights() Rights {
	every := RightsOf(RightDevicesRead, RightPeersRead, RightOrgRead, RightPeopleRead, RightPeopleWrite,
		RightKeysRead, RightKeysWrite, RightEventsRead, RightEventsWrite, RightAuditRead)
	export := RightsOf(RightExportRequest, RightExportApprove)
	holder := every | export | RightsOf(RightDevicesWrite, RightDevicesOwn, RightDevicesBind, RightTokensRead, RightServiceExtend)
	switch k {
	case KindElementMaker:
		return every | export | RightsOf(RightDevicesImport, RightDevicesOwn, RightTokensRead)
	case KindDeviceMaker, KindDistributor:
		return holder | RightsOf(RightDevicesImport)
	case KindOwner:
		return holder
	case KindNetworkOperator:
		return every | RightsOf(RightPeersWrite)
	case KindServerOperator:
		return AllRights()
	}
	return 0
}

// OrgKinds is the kinds of one organisation, in order and without repeats.
type OrgKinds []OrgKind

// EveryKind is what an organisation is of which nothing was said: all but the
// server's operator.
func EveryKind() OrgKinds {
	return OrgKinds{KindElementMaker, KindDeviceMaker, KindDistributor, KindOwner, KindNetworkOperator}
}

// NewOrgKinds puts kinds in order; CodeInvalid where there is none, one that is
// not known, or the server's operator, which exists once.
func NewOrgKinds(list []OrgKind) (OrgKinds, error) {
	for _, k := range list {
		if !slices.Contains(EveryKind(), k) {
			return nil, Errorf(CodeInvalid, "kinds: want one or more of %s", strings.ReplaceAll(words(EveryKind()), " ", ", "))
		}
	}
	out := OrgKinds(slices.DeleteFunc(OrgKindsInOrder(), func(k OrgKind) bool { return !slices.Contains(list, k) }))
	if len(out) == 0 {
		return nil, Errorf(CodeInvalid, "kinds: an organisation is of one kind at least")
	}
	return out, nil
}

// Is tells whether any of those is among the kinds.
func (k OrgKinds) Is(those ...OrgKind) bool {
	return slices.ContainsFunc(k, func(one OrgKind) bool { return slices.Contains(those, one) })
}

// Rights gives what the kinds let an organisation do, together.
func (k OrgKinds) Rights() (set Rights) {
	for _, one := range k {
		set |= one.Rights()
	}
	return set
}

// String gives the kinds with spaces between, the form in which they are stored.
func (k OrgKinds) String() string { return words(k) }

// ParseOrgKinds reads what String gave, and leaves out what is not known.
func ParseOrgKinds(text string) OrgKinds {
	list := fields[OrgKind](text)
	return slices.DeleteFunc(OrgKinds(OrgKindsInOrder()), func(k OrgKind) bool { return !slices.Contains(list, k) })
}

func words[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = string(v)
	}
	return strings.Join(texts, " ")
}

func fields[T ~string](text string) (list []T) {
	for f := range strings.FieldsSeq(text) {
		list = append(list, T(f))
	}
	return list
}
