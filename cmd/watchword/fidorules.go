package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/webauthn"
)

func fidoRules(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rules",
		Short:   "Say which keys may be enrolled, for everybody, a realm or a group",
		Example: "  watchword fido rules show --json > rules.json\n  watchword fido rules set rules.json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(rulesShow(c), rulesSet(c))
	return cmd
}

func rulesShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the rules; with --json as 'fido rules set' takes them",
		Example: "  watchword fido rules show\n  watchword fido rules show --json > rules.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.printRules(cmd, call{what: "show the rules", path: pathTo("fido", "rules")})
		},
	}
}

func rulesSet(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "set FILE",
		Short: "Replace the rules by those of a JSON file",
		Long: `Replaces all rules. The file is what 'fido rules show --json' prints, changed: its
version keeps you from undoing what somebody else changed meanwhile. A file that is
only the rules, {"default": {...}, "realms": {...}}, replaces whatever there is.
They hold from the next enrolment on; keys that were enrolled before stay.

Each of default, realms.NAME and realms.NAME.groups.NAME takes
  permitted_aaguids     if there are any, only these models
  prohibited_aaguids    never these models, also where a closer level says otherwise
  least_certification   FIDO_CERTIFIED, FIDO_CERTIFIED_L1, _L1plus, _L2, ... _L3plus
  required_attestation  basic (a certificate proves the model; the default), self, none
  allow_unknown         true: also models that no metadata and no own root knows; they
                        prove nothing, so it takes required_attestation self or none
  allow_zero_aaguid     true: also keys that do not say what they are, such as U2F
  synced                true, false: as fido.allow_synced, for this level`,
		Example: "  watchword fido rules set rules.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "set the rules", method: http.MethodPut, path: pathTo("fido", "rules")}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return &failure{What: r.what, Why: args[0] + ": " + plainCause(err), Do: "name a JSON file with the rules"}
			}
			in := map[string]json.RawMessage{}
			if err := json.Unmarshal(text, &in); err != nil {
				return &failure{What: r.what, Why: args[0] + " is no JSON object: " + err.Error(), Do: "'watchword fido rules show --json' prints one"}
			}
			body := api.KeyRules{Rules: text}
			if rules, wrapped := in["rules"]; wrapped {
				body.Rules = rules
				if json.Unmarshal(in["version"], &body.Version) != nil || len(in) != 2 {
					return &failure{What: r.what, Why: args[0] + " has something other than version and rules", Do: "'watchword fido rules show --json' prints such a file"}
				}
			} else {
				quiet := *c
				quiet.json = false
				now, _, err := get[api.KeyRules](cmd, &quiet, call{what: r.what, path: r.path})
				if err != nil {
					return err
				}
				body.Version = now.Version
			}
			r.body = body
			return c.printRules(cmd, r)
		},
	}
}

func (c *client) printRules(cmd *cobra.Command, r call) error {
	answer, printed, err := get[api.KeyRules](cmd, c, r)
	if err != nil || printed {
		return err
	}
	var rules webauthn.RuleSet
	if err := json.Unmarshal(answer.Rules, &rules); err != nil {
		return &failure{What: r.what, Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
	}
	t := newTable("FOR", "ATTESTATION", "CERTIFIED", "UNKNOWN", "UNNAMED", "SYNCED", "MODELS")
	addRules(t, "everybody", &rules.Default)
	for _, realm := range slices.Sorted(maps.Keys(rules.Realms)) {
		own := rules.Realms[realm]
		addRules(t, "realm "+realm, &own.Rules)
		for _, group := range slices.Sorted(maps.Keys(own.Groups)) {
			of := own.Groups[group]
			addRules(t, "group "+group+" of "+realm, &of)
		}
	}
	if answer.Version == 0 {
		hint("no rules were set: only attested models that the metadata or an own root vouches for")
	}
	return t.print(cmd.OutOrStdout())
}

func addRules(t *table, who string, r *webauthn.Rules) {
	attestation := r.RequiredAttestation
	if attestation == "" {
		attestation = "basic"
	}
	synced := "as set"
	if r.Synced != nil {
		synced = yesNo(*r.Synced)
	}
	models := "all"
	if len(r.PermittedAAGUIDs) > 0 {
		models = "only " + strings.Join(r.PermittedAAGUIDs, ", ")
	}
	if len(r.ProhibitedAAGUIDs) > 0 {
		models += " but " + strings.Join(r.ProhibitedAAGUIDs, ", ")
	}
	t.add(who, attestation, orDash(certificationName(r.LeastCertification)), yesNo(r.AllowUnknown), yesNo(r.AllowZeroAAGUID), synced, models)
}
