package api

import (
	"context"

	"watchword/tokens"
)

func aSink(name string) tokens.SinkState {
	return tokens.SinkState{
		Sink: tokens.Sink{
			Name: name, ID: "77", Kind: tokens.SinkWebhook, URL: "https://hooks.example.org/", Events: []string{tokens.NoticeTokenLost},
			Created: testTime, Updated: testTime, Stopped: "it answered 410 Gone", Secret: []byte("sealed"), Key: []byte("sealed"),
		},
		Lag: 7, Behind: testTime, Failures: 2, LastError: "the receiver answered 500", FailedAt: testTime,
	}
}

func (s *scripted) Sinks(_ context.Context, p tokens.Principal) ([]tokens.SinkState, error) {
	file := aSink("archive")
	file.Sink = tokens.Sink{Name: "archive", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 1 << 20, Keep: 3, Created: testTime, Updated: testTime}
	syslog := tokens.SinkState{Sink: tokens.Sink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tcp://a:1", AllowPlaintext: true, Created: testTime, Updated: testTime}, Telling: true}
	return []tokens.SinkState{file, aSink("pager"), syslog}, s.asked(p, "", "", nil)
}

func (s *scripted) Sink(_ context.Context, p tokens.Principal, name string) (tokens.SinkState, error) {
	return aSink(name), s.asked(p, "", "", name)
}

func (s *scripted) PutSink(_ context.Context, p tokens.Principal, n tokens.NewSink) (tokens.SinkState, string, error) {
	return aSink(n.Name), "whsec_shown-once", s.asked(p, "", "", n)
}

func (s *scripted) CompareSink(_ context.Context, p tokens.Principal, n tokens.NewSink) (tokens.SinkState, []string, error) {
	return aSink(n.Name), []string{"secret"}, s.asked(p, "", "", n)
}

func (s *scripted) DeleteSink(_ context.Context, p tokens.Principal, name string) error {
	return s.asked(p, "", "", name)
}

func (s *scripted) TestSink(_ context.Context, p tokens.Principal, name string) error {
	return s.asked(p, "", "", name)
}
