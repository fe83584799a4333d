package main

import (
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"watchword/radius"
)

func clientAttributes(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "attributes [TEXT]",
		Short: "List the attributes that replies may have",
		Long: `Lists the attributes that --reply may name, with how their values are written: those
with TEXT in their name, their vendor or the names of their values. No server is asked:
attributes of its radius.dictionaries are listed where --dictionary names the files.`,
		Example: "  watchword client attributes tunnel\n  watchword client attributes cisco\n  watchword client attributes role --dictionary /etc/watchword/dictionary.ours",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := radius.NewDictionary(files...)
			if err != nil {
				return &failure{What: "list the attributes", Why: err.Error()}
			}
			list := d.Entries(strings.Join(args, ""))
			if c.json {
				return printAttributes(cmd, list)
			}
			t := newTable("NAME", "VENDOR", "NUMBER", "KIND", "ONCE", "VALUES")
			for _, e := range list {
				name := e.Name
				if e.Tagged {
					name += "[:TAG]"
				}
				t.add(name, orDash(e.Vendor), itoa(int(e.Number)), e.Kind, yesNo(e.Once), orDash(strings.Join(e.Values, ",")))
			}
			return printList(cmd, t, "no attribute has that in its name; without TEXT all are listed")
		},
	}
	cmd.Flags().StringArrayVar(&files, "dictionary", nil, "a file with more attributes; may be given several times")
	return cmd
}

// printAttributes prints attributes as JSON.
func printAttributes(cmd *cobra.Command, list []radius.Entry) error {
	type item struct {
		Name   string   `json:"name"`
		Vendor string   `json:"vendor,omitempty"`
		Number uint32   `json:"number"`
		Kind   string   `json:"kind"`
		Once   bool     `json:"once"`
		Tagged bool     `json:"tagged"`
		Values []string `json:"values,omitempty"`
	}
	items := make([]item, len(list))
	for i, e := range list {
		items[i] = item(e)
	}
	body, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return err
	}
	return printJSON(cmd.OutOrStdout(), body)
}
