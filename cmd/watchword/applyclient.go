package main

import (
	"maps"
	"slices"

	"watchword/api"
	"watchword/tokens"
)

// options are a client's as the core has them.
func (f *clientForm) options() tokens.ClientOptions {
	o := tokens.ClientOptions{Rate: f.Rate, Messages: f.Messages}
	for _, d := range f.Dialogues {
		o.Dialogues = append(o.Dialogues, tokens.Dialogue(d))
	}
	for _, d := range f.Joined {
		o.Joined = append(o.Joined, tokens.Dialogue(d))
	}
	for _, r := range f.Replies {
		reply := tokens.Reply{Group: r.Group}
		for _, a := range r.Attributes {
			reply.Attributes = append(reply.Attributes, tokens.ReplyAttribute(a))
		}
		o.Replies = append(o.Replies, reply)
	}
	return o
}

// normal brings the client's options into the form in which the server answers them, or
// says which of them is wrong.
func (f *clientForm) normal(d *document) error {
	all := f.options()
	var held tokens.ClientOptions
	for _, one := range []struct {
		key string
		o   tokens.ClientOptions
	}{
		{"dialogues", tokens.ClientOptions{Dialogues: all.Dialogues}},
		{"joined", tokens.ClientOptions{Dialogues: all.Dialogues, Joined: all.Joined}},
		{"rate", tokens.ClientOptions{Rate: all.Rate}},
		{"replies", tokens.ClientOptions{Replies: all.Replies}},
		{"messages", all},
	} {
		var err error
		if held, err = one.o.Normal(); err != nil {
			return d.of(one.key).wrong("%s", says(err))
		}
	}
	f.setOptions(&held)
	return nil
}

func (f *clientForm) setOptions(o *tokens.ClientOptions) {
	f.Dialogues, f.Joined, f.Replies = nil, nil, nil
	for _, d := range o.Dialogues {
		f.Dialogues = append(f.Dialogues, string(d))
	}
	for _, d := range o.Joined {
		f.Joined = append(f.Joined, string(d))
	}
	for _, r := range o.Replies {
		reply := replyForm{Group: r.Group}
		for _, a := range r.Attributes {
			reply.Attributes = append(reply.Attributes, attributeForm(a))
		}
		f.Replies = append(f.Replies, reply)
	}
	f.Rate, f.Messages = o.Rate, o.Messages
}

// formOf is a live client as a file would have it.
func formOf(k *api.Client) clientForm {
	f := clientForm{
		Name: k.Name, Address: k.Prefix, Realm: k.Realm, RequireMA: k.RequireMessageAuthenticator,
		ProxyState: k.AllowUnsignedProxyState, Methods: k.Methods, NameRule: string(k.NameRule),
		Dialogues: k.Dialogues, Joined: k.Joined, Rate: k.Rate, Messages: k.Messages,
	}
	for _, r := range k.Replies {
		reply := replyForm{Group: valueOf(r.Group)}
		for _, a := range r.Attributes {
			reply.Attributes = append(reply.Attributes, attributeForm(a))
		}
		f.Replies = append(f.Replies, reply)
	}
	return f
}

// settings are what the client is put with, but for its secret.
func (f *clientForm) settings() api.ClientSettings {
	rule := api.NameRule(f.NameRule)
	s := api.ClientSettings{
		Prefix: f.Address, Realm: &f.Realm, RequireMessageAuthenticator: &f.RequireMA, NameRule: &rule,
		Methods: &f.Methods, AllowUnsignedProxyState: &f.ProxyState, Rate: &f.Rate,
	}
	if len(f.Dialogues) > 0 {
		s.Dialogues = &f.Dialogues
	}
	if len(f.Joined) > 0 {
		s.Joined = &f.Joined
	}
	if len(f.Messages) > 0 {
		messages := api.RadiusMessages(f.Messages)
		s.Messages = &messages
	}
	if len(f.Replies) > 0 {
		replies := api.RadiusReplies{}
		for _, r := range f.Replies {
			reply := api.RadiusReply{Group: ptr(r.Group)}
			for _, a := range r.Attributes {
				reply.Attributes = append(reply.Attributes, api.RadiusAttribute(a))
			}
			replies = append(replies, reply)
		}
		s.Replies = &replies
	}
	return s
}

// shownClient is a client as differences are told: what is in lists stands there as
// flags have it, in quotes so that nothing looks like something else.
type shownClient struct {
	clientForm
	Replies  []string `json:"replies"`
	Messages []string `json:"messages"`
}

func (f *clientForm) shown() shownClient {
	s := shownClient{clientForm: *f}
	for _, r := range f.Replies {
		whose := ""
		if r.Group != "" {
			whose = scalar(r.Group) + ":"
		}
		for _, a := range r.Attributes {
			s.Replies = append(s.Replies, whose+a.Name+"="+quoted(a.Value))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.Messages)) {
		s.Messages = append(s.Messages, key+"="+quoted(f.Messages[key]))
	}
	return s
}

// clientOptions writes those options of a client that are not its default.
func (w *writer) clientOptions(f *clientForm) {
	if len(f.Dialogues) > 0 {
		w.line(0, "dialogues", flow(f.Dialogues))
	}
	if len(f.Joined) > 0 {
		w.line(0, "joined", flow(f.Joined))
	}
	if f.Rate > 0 {
		w.line(0, "rate", itoa(f.Rate))
	}
	if len(f.Replies) > 0 {
		w.line(0, "replies", "")
	}
	for _, r := range f.Replies {
		lead := "- "
		if r.Group != "" {
			w.line(1, "- group", scalar(r.Group))
			lead = "  "
		}
		w.line(1, lead+"attributes", "")
		for _, a := range r.Attributes {
			w.line(3, "- name", scalar(a.Name))
			w.line(4, "value", quoted(a.Value))
		}
	}
	if len(f.Messages) > 0 {
		w.line(0, "messages", "")
	}
	for _, key := range slices.Sorted(maps.Keys(f.Messages)) {
		w.line(1, key, quoted(f.Messages[key]))
	}
}
