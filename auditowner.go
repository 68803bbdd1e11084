package joinery

// Audit events of ownership. A transfer has one entry for each side.
const (
	AuditDeviceReleased        AuditEvent = "device.released"
	AuditDeviceTransferred     AuditEvent = "device.transferred"
	AuditTransferOffered       AuditEvent = "transfer.offered"
	AuditTransferCancelled     AuditEvent = "transfer.cancelled"
	AuditOwnerTokenRegenerated AuditEvent = "device.owner_token_regenerated"
	AuditDisputeOpened         AuditEvent = "dispute.opened"
	AuditDisputeDecided        AuditEvent = "dispute.decided"
	AuditDisputeWithdrawn      AuditEvent = "dispute.withdrawn"
)
