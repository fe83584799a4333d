package main

import "testing"

func TestAnAPIKeyGoesInClearToThisMachineOnly(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true,
		"127.0.0.1.example.org": false, "127.example.org": false, "login.example.org": false, "10.0.0.1": false, "0.0.0.0": false, "": false,
	} {
		if local(host) != want {
			t.Errorf("%q is this machine: %v", host, !want)
		}
	}
}
