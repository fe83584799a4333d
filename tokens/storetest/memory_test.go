package storetest_test

import (
	"testing"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

func TestMemoryKeepsThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tokens.Database {
		m := storetest.NewMemory(t)
		m.Forgive() // the suite does on purpose what is never to be done
		return m
	})
}
