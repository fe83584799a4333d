//go:build race

package pskc

const raceDetector = true
