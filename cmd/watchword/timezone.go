package main

import (
	"fmt"
	"time"
	_ "time/tzdata" // for machines that have no time zones of their own
)

// location is the time zone that is configured; check has seen that there is one.
func (c *Config) location() *time.Location {
	at, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return time.UTC
	}
	return at
}

// checkTimeZone says what is wrong with the time zone, or nil. That of the machine
// would be another on each node.
func (c *Config) checkTimeZone() error {
	if _, err := time.LoadLocation(c.TimeZone); err != nil || c.TimeZone == "Local" {
		return fmt.Errorf("time_zone: there is no time zone %q; it is a name such as Europe/Berlin, or UTC", c.TimeZone)
	}
	return nil
}
