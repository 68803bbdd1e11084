package api

import (
	"fmt"
	"slices"
	"strings"

	"joinery"
)

// What an operation needs, besides rights.
const (
	anyCaller joinery.Right = "any"  // any credential of ours
	everybody joinery.Right = "none" // no credential at all
)

// needs says which right a caller needs for each operation. It is the only place
// that says so: the door holds every call against it before a rule sees the call,
// the document names the right at each operation, and the tables of docs/people.md
// are made from it. An operation that is missing here keeps the door from opening.
var needs = map[string]joinery.Right{
	"getStatus": anyCaller, "getTransportKey": anyCaller,

	"listDevices": joinery.RightDevicesRead, "getDevice": joinery.RightDevicesRead,
	"listActivations": joinery.RightDevicesRead, "explainDevice": joinery.RightDevicesRead,
	"suspendDevice": joinery.RightDevicesWrite, "resumeDevice": joinery.RightDevicesWrite,
	"deleteDevice": joinery.RightDevicesWrite, "resetNonces": joinery.RightDevicesWrite,
	"listImportedDevices": joinery.RightDevicesRead, "getManifestEntry": joinery.RightDevicesRead,
	"claimDevice": joinery.RightDevicesOwn, "changeOwnership": joinery.RightDevicesOwn,
	"releaseDevice": joinery.RightDevicesOwn, "regenerateOwnerToken": joinery.RightDevicesOwn,
	"offerTransfer": joinery.RightDevicesOwn, "acceptTransfer": joinery.RightDevicesOwn, "cancelTransfer": joinery.RightDevicesOwn,
	"getTransfer": joinery.RightDevicesRead, "listTransfers": joinery.RightDevicesRead,
	"makeChallenge": joinery.RightDevicesOwn, "openDispute": joinery.RightDevicesOwn, "withdrawDispute": joinery.RightDevicesOwn,
	"getDispute": joinery.RightDevicesRead, "listDisputes": joinery.RightDevicesRead, "decideDispute": joinery.RightServerWrite,
	"bindDevice": joinery.RightDevicesBind, "unbindDevice": joinery.RightDevicesBind,
	"getOwnerToken": joinery.RightTokensRead, "readOwnerTokens": joinery.RightTokensRead,

	"beginImport": joinery.RightDevicesImport, "importRows": joinery.RightDevicesImport,
	"getImport": joinery.RightDevicesRead, "listImportErrors": joinery.RightDevicesRead,

	"listPeers": joinery.RightPeersRead, "getPeer": joinery.RightPeersRead, "listPeerRefusals": joinery.RightPeersRead,
	"listKEKs": joinery.RightPeersRead, "listRoaming": joinery.RightPeersRead,
	"addPeer": joinery.RightPeersWrite, "changePeer": joinery.RightPeersWrite, "removePeer": joinery.RightPeersWrite,
	"addKEK": joinery.RightPeersWrite, "retireKEK": joinery.RightPeersWrite,
	"setRoaming": joinery.RightDevicesBind,

	"listOrganisations": joinery.RightOrgRead, "listJoinEUIRanges": joinery.RightOrgRead, "listSigners": joinery.RightOrgRead,
	"addOrganisation": joinery.RightServerWrite, "changeOrganisation": joinery.RightServerWrite,
	"assignJoinEUIRange": joinery.RightServerWrite, "releaseJoinEUIRange": joinery.RightServerWrite,
	"addSigner": joinery.RightServerWrite, "removeSigner": joinery.RightServerWrite,
	"bootstrapOperator": joinery.RightServerWrite,
	"getRotation":       joinery.RightServerWrite, "listCustodyRoots": joinery.RightServerWrite, "rewrapRoots": joinery.RightServerWrite,

	"getDeviceService": joinery.RightDevicesRead, "listServiceDevices": joinery.RightDevicesRead,
	"extendService": joinery.RightServiceExtend, "listServiceCredits": joinery.RightOrgRead, "grantServiceCredit": joinery.RightServerWrite,
	"listPlans": joinery.RightServerWrite, "putPlan": joinery.RightServerWrite, "removePlan": joinery.RightServerWrite,
	"getUsage": joinery.RightOrgRead, "getUsageCSV": joinery.RightOrgRead,
	"getClock": joinery.RightServerWrite, "confirmClock": joinery.RightServerWrite,
	"listExports": joinery.RightDevicesRead, "listExportSigners": joinery.RightDevicesRead, "getExport": joinery.RightDevicesRead, "listExportDevices": joinery.RightDevicesRead,
	"listRecipients": joinery.RightDevicesRead, "getExportPolicy": joinery.RightDevicesRead, "listDisclosures": joinery.RightDevicesRead,
	"requestExport": joinery.RightExportRequest, "addExportDevices": joinery.RightExportRequest, "withdrawExport": joinery.RightExportRequest,
	"getExportFile": joinery.RightExportRequest, "acknowledgeExport": joinery.RightExportRequest,
	"addRecipient": joinery.RightExportRequest, "removeRecipient": joinery.RightExportRequest,
	"approveExport": joinery.RightExportApprove, "rejectExport": joinery.RightExportApprove,
	"setExportPolicy": joinery.RightExportApprove, "approveExportPolicy": joinery.RightExportApprove,
	"listCustodyExports": joinery.RightServerWrite, "startExport": joinery.RightServerWrite,
	"listCustodyExportDevices": joinery.RightServerWrite, "handInExport": joinery.RightServerWrite, "tellExport": joinery.RightServerWrite,
	"getRekeying": joinery.RightDevicesRead, "setRekeyProfile": joinery.RightDevicesOwn, "armRekey": joinery.RightDevicesOwn,
	"listRekeyRequests": joinery.RightDevicesRead, "approveRekey": joinery.RightExportApprove, "rejectRekey": joinery.RightExportApprove,
	"requestRekeyBatch": joinery.RightDevicesOwn, "addRekeyBatchDevices": joinery.RightDevicesOwn, "withdrawRekeyBatch": joinery.RightDevicesOwn,
	"listRekeyBatches": joinery.RightDevicesRead, "getRekeyBatch": joinery.RightDevicesRead, "listRekeyBatchDevices": joinery.RightDevicesRead,
	"approveRekeyBatch": joinery.RightExportApprove, "rejectRekeyBatch": joinery.RightExportApprove,
	"cancelRekey": joinery.RightDevicesOwn, "confirmRekey": joinery.RightDevicesOwn,
	"makeRekeyTicket": joinery.RightExportRequest, "takeRekeyResults": joinery.RightDevicesOwn, "makeHandover": joinery.RightExportRequest,
	"makeReceipts": joinery.RightDevicesOwn, "takeReceipts": joinery.RightDevicesOwn,
	"listJoinServers": joinery.RightDevicesRead, "pinJoinServer": joinery.RightServerWrite, "changeJoinServer": joinery.RightServerWrite, "unpinJoinServer": joinery.RightServerWrite,
	"getStatementKey": anyCaller,
	"listArrivals":    joinery.RightDevicesRead, "listExpectations": joinery.RightDevicesRead,
	"addExpectation": joinery.RightDevicesImport, "removeExpectation": joinery.RightDevicesImport, "takeHandover": joinery.RightDevicesImport, "rejectArrivals": joinery.RightDevicesImport,
	"getAttestation": joinery.RightDevicesRead, "getAttestPolicy": joinery.RightDevicesRead,
	"makeAttestChallenge": joinery.RightDevicesWrite, "giveEvidence": joinery.RightDevicesWrite, "giveEvidenceFragment": joinery.RightDevicesWrite,
	"setAttestRule": joinery.RightDevicesOwn, "removeAttestRule": joinery.RightDevicesOwn, "setAttestPolicy": joinery.RightDevicesOwn,
	"listProducts": joinery.RightDevicesRead, "getProduct": joinery.RightDevicesRead,
	"listProductKeys": joinery.RightDevicesRead, "listFirmwareReleases": joinery.RightDevicesRead,
	"addProduct": joinery.RightDevicesImport, "removeProduct": joinery.RightDevicesImport,
	"addProductKey": joinery.RightDevicesImport, "removeProductKey": joinery.RightDevicesImport,
	"addFirmwareRelease": joinery.RightDevicesImport, "withdrawFirmwareRelease": joinery.RightDevicesImport, "lowerFirmwareFloor": joinery.RightDevicesImport,

	"listPeople": joinery.RightPeopleRead, "listInvitations": joinery.RightPeopleRead,
	"changePerson": joinery.RightPeopleWrite, "removePerson": joinery.RightPeopleWrite,
	"invite": joinery.RightPeopleWrite, "withdrawInvitation": joinery.RightPeopleWrite,

	"getMe": anyCaller, "acceptInvitation": anyCaller, "readOffer": anyCaller, "leaveOrganisation": anyCaller,
	"listSessions": anyCaller, "endSession": anyCaller,
	"listPasskeys": anyCaller, "removePasskey": anyCaller,
	"beginLogin": everybody, "finishLogin": everybody,

	"listAPIKeys": joinery.RightKeysRead, "makeAPIKey": joinery.RightKeysWrite, "revokeAPIKey": joinery.RightKeysWrite,
	"listAudit":  joinery.RightAuditRead,
	"getCustody": joinery.RightDevicesRead, "getProvenance": joinery.RightDevicesRead, "eraseLogEntry": joinery.RightServerWrite, "enterCeremony": joinery.RightServerWrite, "stateProvenance": joinery.RightDevicesOwn,

	"listEvents": joinery.RightEventsRead, "listWebhooks": joinery.RightEventsRead, "getWebhook": joinery.RightEventsRead,
	"listDeliveries": joinery.RightEventsRead, "addWebhook": joinery.RightEventsWrite, "removeWebhook": joinery.RightEventsWrite,
	"enableWebhook": joinery.RightEventsWrite, "rotateWebhook": joinery.RightEventsWrite, "testWebhook": joinery.RightEventsWrite,
}

// allow holds a caller against what an operation needs.
func allow(operation string, caller joinery.Caller) error {
	if need := needs[operation]; need != anyCaller && need != everybody {
		return caller.Require(need)
	}
	return nil
}

// needText says in the document what an operation needs.
func needText(need joinery.Right) string {
	switch need {
	case everybody:
		return "Needs no credential."
	case anyCaller:
		return "Every caller may do this."
	}
	var roles []string
	for _, role := range joinery.Roles() {
		if role.Rights().Has(need) {
			roles = append(roles, string(role))
		}
	}
	return fmt.Sprintf("Needs the right `%s`, which has: %s.", need, strings.Join(roles, ", "))
}

// unlisted names the operations that the table lacks.
func (s *Server) unlisted() error {
	var missing []string
	for _, item := range s.made.huma.OpenAPI().Paths {
		for _, op := range operationsOf(item) {
			if needs[op.OperationID] == "" {
				missing = append(missing, op.OperationID)
			}
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		return fmt.Errorf("internal/api/rights.go does not say who may call %s", strings.Join(missing, ", "))
	}
	return nil
}
