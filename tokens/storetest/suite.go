package storetest

import (
	"reflect"
	"testing"

	"watchword/tokens"
)

// Run checks that a tokens.Database keeps what its interfaces promise. open
// answers a new, empty database, migrated, that ends with the test.
func Run(t *testing.T, open func(t *testing.T) tokens.Database) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Load", loadTests},
		{"Commit", commitTests},
		{"Chain", chainTests},
		{"Race", raceTests},
		{"Stage", stageTests},
		{"Batch", batchTests},
		{"Enrol", enrolTests},
		{"Profile", profileTests},
		{"Note", noteTests},
		{"Passcode", passcodeTests},
		{"Life", lifeTests},
		{"Spend", spendTests},
		{"Document", documentTests},
		{"Group", groupTests},
		{"Invitation", invitationTests},
		{"Grant", grantTests},
		{"Session", sessionTests},
		{"Directory", directoryTests},
		{"Registry", registryTests},
		{"Journal", journalTests},
		{"Courier", courierTests},
		{"Report", reportTests},
		{"Setup", setupTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { test.run(newKit(t, open(t))) })
			}
		})
	}
}

type test struct {
	name string
	run  func(k *kit)
}

// same says that two values are deeply equal.
func (k *kit) same(what string, got, want any) {
	k.Helper()
	if !reflect.DeepEqual(got, want) {
		k.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}
