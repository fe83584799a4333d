package main

import (
	"encoding/json"
	"strconv"

	"github.com/spf13/cobra"

	"watchword/api"
)

func userStory(c *client) *cobra.Command {
	return storyCommand(c, "users", "NAME", "Tell what happened to a user and the tokens held, in order",
		"  watchword user story alice\n  watchword user story alice --limit 0 --json")
}

func tokenStory(c *client) *cobra.Command {
	return storyCommand(c, "tokens", "SERIAL", "Tell what happened to a token, in order",
		"  watchword token story 24680017\n  watchword token story 24680017 --limit 0")
}

func storyCommand(c *client, list, arg, short, example string) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "story " + arg,
		Short: short,
		Long: short + `: the newest last, logins
in a row in one line. It is told from the audit.`,
		Example: example,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "tell the story of " + args[0], path: pathTo(list, args[0], "story"), query: c.query()}
			items, more, printed, err := c.story(cmd, r, limit)
			if err != nil || printed {
				return err
			}
			if more {
				hint("there is more before these %d; --limit 0 tells all", len(items))
			}
			t := newTable("TIME", "WHAT HAPPENED")
			for _, i := range items {
				t.add(toSecond(i.Time), i.Text)
			}
			return printList(cmd, t, "nothing is told of it")
		},
	}
	limitFlag(cmd, &limit)
	return cmd
}

// story reads the newest limit items, or all where it is zero, oldest first. The
// pages come newest first, each oldest first.
func (c *client) story(cmd *cobra.Command, r call, limit int) (items []api.StoryItem, more, printed bool, err error) {
	if limit < 0 {
		return nil, false, false, &failure{What: r.what, Why: "--limit is negative", Do: "0 tells all"}
	}
	unreadable := &failure{What: r.what, Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
	raw := []json.RawMessage{}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(raw))
		}
		r.query.Set("limit", strconv.Itoa(size))
		body, err := c.do(cmd.Context(), withMethod(r))
		if err != nil {
			return nil, false, false, err
		}
		var p page
		if json.Unmarshal(body, &p) != nil {
			return nil, false, false, unreadable
		}
		raw, more = append(p.Items, raw...), p.Next != ""
		// A page may be empty although there is more: of what it looked at, nothing
		// was of this story.
		if !more || limit > 0 && len(raw) >= limit {
			break
		}
		r.query.Set("cursor", p.Next)
	}
	if c.json {
		body, err := json.Marshal(map[string]any{"items": raw})
		if err != nil {
			return nil, false, false, err
		}
		return nil, more, true, printJSON(cmd.OutOrStdout(), body)
	}
	items = make([]api.StoryItem, len(raw))
	for i := range raw {
		if json.Unmarshal(raw[i], &items[i]) != nil {
			return nil, false, false, unreadable
		}
	}
	return items, more, false, nil
}
