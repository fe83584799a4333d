package main

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"watchword/webauthn"
)

// Party is a relying party, as an item of fido.parties.
type Party struct {
	ID      string   `yaml:"id"`
	Name    string   `yaml:"name"`
	Origins []string `yaml:"origins"`
}

// parseParties reads the list from a variable, where it is YAML in one line.
func parseParties(text, key string) ([]Party, error) {
	file, err := parser.ParseBytes([]byte(text), 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, yamlError(err))
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s is a list in one line of YAML, such as [{id: example.org, origins: [https://login.example.org]}]", key)
	}
	// What others would write as a list separated by commas.
	if plain, ok := file.Docs[0].Body.(*ast.StringNode); ok {
		var parties []Party
		for id := range strings.SplitSeq(plain.Value, ",") {
			parties = append(parties, usualParty(strings.TrimSpace(id)))
		}
		return parties, nil
	}
	return readParties(file.Docs[0].Body, key)
}

// usualParty is what an id alone stands for.
func usualParty(id string) Party { return Party{ID: id, Origins: []string{"https://" + id}} }

// readParties reads the list strictly. It is nil where nothing is said.
func readParties(n ast.Node, key string) ([]Party, error) {
	switch n := n.(type) {
	case *ast.NullNode:
		return nil, nil
	case *ast.StringNode:
		return []Party{usualParty(n.Value)}, nil
	case *ast.SequenceNode:
		parties := []Party{}
		for _, item := range n.Values {
			if id, ok := item.(*ast.StringNode); ok {
				parties = append(parties, usualParty(id.Value))
				continue
			}
			p, err := readParty(item, key)
			if err != nil {
				return nil, err
			}
			parties = append(parties, p)
		}
		return parties, nil
	}
	return nil, fmt.Errorf("line %d: %s is a list, of {id: example.org, origins: [https://login.example.org]}", lineOf(n), key)
}

func readParty(n ast.Node, key string) (Party, error) {
	var p Party
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		return p, fmt.Errorf("line %d: an item of %s is a name, or a mapping with id and origins", lineOf(n), key)
	}
	var all []*setting
	v := reflect.ValueOf(&p).Elem()
	for i := range v.NumField() {
		all = append(all, &setting{Key: key + "." + v.Type().Field(i).Tag.Get("yaml"), value: v.Field(i)})
	}
	if err := readMapping(n, key+".", all, ""); err != nil {
		return p, err
	}
	switch {
	case p.ID == "":
		return p, fmt.Errorf("line %d: an item of %s has no id", lineOf(n), key)
	case all[len(all)-1].Origin == "":
		p.Origins = usualParty(p.ID).Origins
	}
	return p, nil
}

// flowParties is the list in one line of YAML.
func flowParties(list []Party) string {
	items := make([]string, len(list))
	for i, p := range list {
		items[i] = "{id: " + strconv.Quote(p.ID)
		if p.Name != "" {
			items[i] += ", name: " + strconv.Quote(p.Name)
		}
		items[i] += ", origins: " + flowList(p.Origins) + "}"
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// relyingParties are the configured ones as the ceremonies take them.
func (c *FIDOConfig) relyingParties() []webauthn.Party {
	list := make([]webauthn.Party, len(c.Parties))
	for i, p := range c.Parties {
		list[i] = webauthn.Party{ID: p.ID, Name: p.Name, Origins: p.Origins}
	}
	return list
}

var errPublicURL = errors.New("http.public_url is scheme, host and port, and nothing after them, such as https://login.example.org")
