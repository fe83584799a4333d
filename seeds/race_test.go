//go:build race

package seeds

// The race detector makes it all twenty times slower.
const shipment = 100_000
