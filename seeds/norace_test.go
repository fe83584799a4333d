//go:build !race

package seeds

const shipment = 1_000_000
