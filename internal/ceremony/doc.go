// Package ceremony says what a ceremony of keys is: the plan that people review,
// the steps that come of it, and the signed report that remains. It is apart from
// the keyring because whoever verifies a report has no keys and no token.
package ceremony
