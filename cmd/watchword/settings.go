package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A setting is one leaf of Config.
type setting struct {
	Key    string // hsm.pin_file
	Env    string // WATCHWORD_HSM_PIN_FILE
	Secret string // "": none; "all": never shown; "url": shown without its password
	Origin string // where the value is from; empty: the default
	value  reflect.Value
}

// settings are the leaves of a Config, in the struct's order.
func settings(c *Config) []*setting {
	var all []*setting
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			key := prefix + field.Tag.Get("yaml")
			if field.Type.Kind() == reflect.Struct {
				walk(v.Field(i), key+".")
				continue
			}
			all = append(all, &setting{
				Key:    key,
				Env:    "WATCHWORD_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
				Secret: field.Tag.Get("secret"),
				value:  v.Field(i),
			})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return all
}

// set reads texts into the setting: one, or for a list any number. The error
// says what the setting takes, and never what was there.
func (s *setting) set(texts []string, origin string) error {
	var text string
	if s.value.Kind() != reflect.Slice {
		if len(texts) != 1 {
			return fmt.Errorf("%s is one value, not a list", s.Key)
		}
		text = texts[0]
	}
	switch s.value.Interface().(type) {
	case string:
		s.value.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s is true or false", s.Key)
		}
		s.value.SetBool(b)
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s is a whole number", s.Key)
		}
		s.value.SetInt(int64(n))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%s is a duration such as 30s, 15m or 720h", s.Key)
		}
		s.value.SetInt(int64(d))
	case []string:
		s.value.Set(reflect.ValueOf(slices.Clone(texts)))
	case []Party:
		parties, err := parseParties(strings.Join(texts, ", "), s.Key)
		if err != nil {
			return err
		}
		s.value.Set(reflect.ValueOf(parties))
	default:
		panic("a setting of a kind that cannot be set: " + s.Key)
	}
	s.Origin = origin
	return nil
}

// shown is the setting's value as YAML, without secrets.
func (s *setting) shown() string {
	v := s.value.Interface()
	if text, ok := v.(string); ok && text != "" {
		switch s.Secret {
		case "all":
			return `"" # set, and not shown`
		case "url":
			v = redactURL(text)
		}
	}
	if d, ok := v.(time.Duration); ok {
		v = shortDuration(d)
	}
	switch list := v.(type) {
	case []string:
		return flowList(list)
	case []Party:
		return flowParties(list)
	}
	b, err := yaml.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers can be marshalled
	}
	return strings.TrimSpace(string(b))
}

// flowList is a list in one line of YAML.
func flowList(list []string) string {
	quoted := make([]string, len(list))
	for i, item := range list {
		quoted[i] = strconv.Quote(item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// loadConfig reads the file, if path is not empty, and the environment.
func loadConfig(path string, environ []string) (*Config, []*setting, error) {
	c := defaultConfig()
	all := settings(c)
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, &failure{What: "read the configuration " + path, Why: plainCause(err), Do: "name a file that can be read with --config"}
		}
		if err := readYAML(text, all, path); err != nil {
			return nil, nil, &failure{What: "read the configuration " + path, Why: err.Error(), Do: "'watchword config --manual' explains every key"}
		}
	}
	for _, s := range all {
		if text := lookup(environ, s.Env); text != "" {
			if err := s.set(splitList(s, text), s.Env); err != nil {
				return nil, nil, &failure{What: "read the variable " + s.Env, Why: err.Error(), Do: "'watchword config --manual' explains every key"}
			}
		}
	}
	return c, all, nil
}

// splitList is the text of a variable or a flag as set takes it.
func splitList(s *setting, text string) []string {
	if _, list := s.value.Interface().([]string); !list {
		return []string{text}
	}
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// lookup is a variable's text. An empty one is as good as none.
func lookup(environ []string, name string) string {
	for _, pair := range environ {
		if key, text, _ := strings.Cut(pair, "="); key == name {
			return text
		}
	}
	return ""
}

// strangeVariables are WATCHWORD_ variables that mean nothing. They are no
// error: Kubernetes makes some of its own for a service of that name.
func strangeVariables(environ []string, all []*setting) []string {
	known := []string{"WATCHWORD_CONFIG", "WATCHWORD_URL", "WATCHWORD_API_KEY_FILE", "WATCHWORD_REALM", "WATCHWORD_CA_FILE"}
	for _, s := range all {
		known = append(known, s.Env)
	}
	var strange []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "WATCHWORD_") && !slices.Contains(known, name) {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	return strange
}

// readYAML sets what a YAML file says. It is strict: an unknown key is an error
// with its line. It goes by the text of each value, so that a PIN of 00123 is
// not taken for a number.
func readYAML(text []byte, all []*setting, path string) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return yamlError(err)
	}
	if len(file.Docs) > 1 {
		return fmt.Errorf("line %d: a second document begins; the configuration is one", file.Docs[1].Start.Position.Line)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if err := readMapping(doc.Body, "", all, path); err != nil {
			return err
		}
	}
	return nil
}

func readMapping(n ast.Node, prefix string, all []*setting, path string) error {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil
	default:
		name := strings.TrimSuffix(prefix, ".")
		if name == "" {
			name = "the configuration"
		}
		return fmt.Errorf("line %d: %s is a mapping (key: value)", lineOf(n), name)
	}
	for _, pair := range pairs {
		key := prefix + pair.Key.GetToken().Value
		line := lineOf(pair.Key)
		if i := slices.IndexFunc(all, func(s *setting) bool { return s.Key == key }); i >= 0 {
			if s := all[i]; s.value.Type() == reflect.TypeFor[[]Party]() {
				parties, err := readParties(pair.Value, key)
				if err != nil {
					return err
				}
				if parties != nil {
					s.value.Set(reflect.ValueOf(parties))
					s.Origin = fmt.Sprintf("%s line %d", path, line)
				}
				continue
			}
			texts, null, err := scalars(pair.Value, key)
			if err != nil {
				return err
			}
			if null {
				continue
			}
			if err := all[i].set(texts, fmt.Sprintf("%s line %d", path, line)); err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
			continue
		}
		if !slices.ContainsFunc(all, func(s *setting) bool { return strings.HasPrefix(s.Key, key+".") }) {
			return fmt.Errorf("line %d: unknown key %q%s", line, key, nearest(key, all))
		}
		if err := readMapping(pair.Value, key+".", all, path); err != nil {
			return err
		}
	}
	return nil
}

// scalars are the texts of a scalar or of a list of them.
func scalars(n ast.Node, key string) (texts []string, null bool, err error) {
	switch n := n.(type) {
	case *ast.NullNode:
		return nil, true, nil
	case *ast.SequenceNode:
		for _, item := range n.Values {
			one, null, err := scalars(item, key)
			if err != nil {
				return nil, false, err
			}
			if _, list := item.(*ast.SequenceNode); list || null {
				return nil, false, fmt.Errorf("line %d: an item of %s is not a single value", lineOf(item), key)
			}
			texts = append(texts, one...)
		}
		return texts, false, nil
	case *ast.LiteralNode:
		return []string{n.Value.Value}, false, nil
	case *ast.StringNode:
		return []string{n.Value}, false, nil
	case ast.ScalarNode:
		return []string{n.GetToken().Value}, false, nil
	}
	return nil, false, fmt.Errorf("line %d: %s is a value, not a %s", lineOf(n), key, strings.ToLower(n.Type().String()))
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// yamlError is the parser's word without the text that it quotes.
func yamlError(err error) error {
	var known yaml.Error
	if errors.As(err, &known) && known.GetToken() != nil && known.GetToken().Position != nil {
		return fmt.Errorf("line %d: %s", known.GetToken().Position.Line, known.GetMessage())
	}
	return errors.New("it is not valid YAML")
}

// nearest suggests the key that was perhaps meant.
func nearest(key string, all []*setting) string {
	best, distance := "", 4
	for _, s := range all {
		if d := editDistance(key, s.Key); d < distance {
			best, distance = s.Key, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %q meant?", best)
}

// editDistance counts the letters to change to get from a to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
