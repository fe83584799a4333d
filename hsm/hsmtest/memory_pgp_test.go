package hsmtest

import "testing"

func TestMemoryPGPConforms(t *testing.T) {
	RunPGPHolder(t, func(t *testing.T) PGPHolderUnderTest {
		m := NewMemory(t)
		return PGPHolderUnderTest{PGPKeystore: m, Records: m.Records()}
	})
}
