package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// serverFlags are the flags that stand for settings.
type serverFlags struct {
	config                   string
	dataDir, database        string
	httpListen, radiusListen []string
}

func (f *serverFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.config, "config", "", "YAML file with the configuration (or WATCHWORD_CONFIG)")
	flags.StringVar(&f.dataDir, "data-dir", "", "data directory (default ./var)")
	flags.StringSliceVar(&f.httpListen, "http", nil, "addresses for HTTP, or none (default 127.0.0.1:8080)")
	flags.StringSliceVar(&f.radiusListen, "radius", nil, "addresses for RADIUS, or none (default 127.0.0.1:1812)")
	flags.StringVar(&f.database, "database", "", "sqlite:PATH or postgres://... (default SQLite in the data directory)")
}

// load reads the configuration from file, variables and flags, and checks it.
func (f *serverFlags) load(c *cobra.Command) (*Config, []*setting, error) {
	path := f.config
	if path == "" {
		path = os.Getenv("WATCHWORD_CONFIG")
	}
	config, all, err := loadConfig(path, os.Environ())
	if err != nil {
		return nil, nil, err
	}
	for _, flag := range []struct {
		name, key string
		texts     []string
	}{
		{"data-dir", "data_dir", []string{f.dataDir}},
		{"http", "http.listen", f.httpListen},
		{"radius", "radius.listen", f.radiusListen},
		{"database", "database", []string{f.database}},
	} {
		if !c.Flags().Changed(flag.name) {
			continue
		}
		for _, s := range all {
			if s.Key != flag.key {
				continue
			}
			if err := s.set(flag.texts, "--"+flag.name); err != nil {
				return nil, nil, err
			}
		}
	}
	if c.Flags().Changed("database") {
		config.DatabaseFile = ""
	}
	return config, all, config.check()
}

func configCommand() *cobra.Command {
	var f serverFlags
	var explain bool
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the server's configuration as it is in effect",
		Long: `Reads what 'watchword serve' with the same flags and variables would read, checks
it, and prints it as YAML, with where each value is from. Secrets are not shown.`,
		Example: "  watchword config\n  watchword config --manual --data-dir /var/lib/watchword",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, all, err := f.load(c)
			if err != nil {
				return err
			}
			return printConfig(c.OutOrStdout(), all, explain)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&explain, "manual", false, "print what each key means, too")
	return c
}

// printConfig writes the settings as YAML. With explain each has its manual.
func printConfig(w io.Writer, all []*setting, explain bool) error {
	comments := map[string]string{}
	if explain {
		var err error
		if comments, err = readManual(); err != nil {
			return err
		}
		comment(w, "", comments[""])
	}
	section := ""
	for _, s := range all {
		in, name, nested := strings.Cut(s.Key, ".")
		indent := "  "
		if !nested {
			in, name, indent = "", s.Key, ""
		}
		if in != section {
			section = in
			if explain {
				fmt.Fprintln(w)
			}
			comment(w, "", comments[in])
			fmt.Fprintf(w, "%s:\n", in)
		} else if explain && comments[s.Key] != "" {
			fmt.Fprintln(w)
		}
		comment(w, indent, comments[s.Key])
		line := fmt.Sprintf("%s%s: %s", indent, name, s.shown())
		if s.Origin != "" {
			sep := " # "
			if strings.Contains(line, " # ") {
				sep = ", "
			}
			line += sep + "from " + s.Origin
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func comment(w io.Writer, indent, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(w, strings.TrimRight(indent+"# "+strings.TrimSpace(line), " "))
	}
}

// readManual gathers the comments of Config's fields by key; "" is the whole.
func readManual() (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", manual, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	structs := map[string]*ast.StructType{}
	about := map[string]string{}
	for _, decl := range file.Decls {
		general, ok := decl.(*ast.GenDecl)
		if !ok || general.Tok != token.TYPE {
			continue
		}
		spec := general.Specs[0].(*ast.TypeSpec)
		if body, ok := spec.Type.(*ast.StructType); ok {
			structs[spec.Name.Name] = body
			about[spec.Name.Name] = strings.TrimPrefix(general.Doc.Text(), spec.Name.Name+" is ")
		}
	}
	comments := map[string]string{"": capital(about["Config"])}
	var walk func(body *ast.StructType, prefix string)
	walk = func(body *ast.StructType, prefix string) {
		for _, field := range body.Fields.List {
			_, tag, _ := strings.Cut(field.Tag.Value, `yaml:"`)
			name, _, _ := strings.Cut(tag, `"`)
			key := prefix + name
			if of, ok := field.Type.(*ast.Ident); ok && structs[of.Name] != nil {
				comments[key] = capital(about[of.Name])
				walk(structs[of.Name], key+".")
				continue
			}
			comments[key] = field.Doc.Text()
		}
	}
	walk(structs["Config"], "")
	return comments, nil
}

func capital(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
