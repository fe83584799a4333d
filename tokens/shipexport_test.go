package tokens

// Untold is for the tests of this room.
var Untold = (*Service).untold

// ExpireAudit is for the tests of this room.
var ExpireAudit = (*Service).expireAudit

// PoliciesOf is for the tests of this room.
var PoliciesOf = (*Service).policiesOf
