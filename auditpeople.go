package joinery

// Audit events about people: who may act for whom. Signing in is no custody
// event; the log of the server tells of it.
const (
	AuditOrgChanged        AuditEvent = "org.changed"
	AuditPersonInvited     AuditEvent = "person.invited"
	AuditInvitationEnded   AuditEvent = "person.invitation_withdrawn"
	AuditPersonJoined      AuditEvent = "person.joined"
	AuditPersonRoleChanged AuditEvent = "person.role_changed"
	AuditPersonRemoved     AuditEvent = "person.removed"
	AuditPersonLeft        AuditEvent = "person.left"
	AuditPasskeyAdded      AuditEvent = "person.passkey_added"
	AuditPasskeyRemoved    AuditEvent = "person.passkey_removed"
	AuditProgramAgreed     AuditEvent = "person.program_agreed" // a program acts as them from then on
	AuditOperatorBootstrap AuditEvent = "operator.bootstrap_issued"
)
