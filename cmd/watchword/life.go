package main

import (
	"time"

	"watchword/api"
)

// person is a user with who that is.
type person struct {
	api.User
	Display    string            `json:"display"`
	Mail       string            `json:"mail"`
	ExternalID string            `json:"external_id"`
	Groups     []string          `json:"groups"`
	Attributes map[string]string `json:"attributes"`
	PINDue     bool              `json:"pin_due"`
	Say        string            `json:"say"`
}

// piece is a token with what is noted on it.
type piece struct {
	api.Token
	Assigned *time.Time `json:"assigned"`
	Expires  *time.Time `json:"expires"`
	Note     string     `json:"note"`
	Tags     []string   `json:"tags"`
	Left     int        `json:"left"`
	Say      string     `json:"say"`
	Temp     *issued    `json:"temporary"`
}

// issued is a passcode, which is shown this once.
type issued struct {
	Token piece    `json:"token"`
	Code  string   `json:"code"`
	Codes []string `json:"codes"`
	Say   string   `json:"say"`
}
