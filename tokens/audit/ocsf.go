package audit

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
)

// OCSFVersion is the version of the Open Cybersecurity Schema Framework that
// AppendOCSF writes.
const OCSFVersion = "1.3.0"

// The classes and categories that are used.
const (
	ocsfIAM         = 3
	ocsfApplication = 6

	ocsfAccountChange    = 3001
	ocsfAuthentication   = 3002
	ocsfEntityManagement = 3004
	ocsfAPIActivity      = 6003

	ocsfOther = 99
)

// AppendOCSF appends the record as one OCSF event, a JSON object in one line: an
// Authentication, an Account Change, an Entity Management or an API Activity. What
// the schema has no place for, and all that is hashed, is its unmapped object, which
// is what AppendJSON writes. version is the program's.
func (r *Record) AppendOCSF(b []byte, version string) []byte {
	e := r.ocsf()
	e.TypeUID = e.ClassUID*100 + e.ActivityID
	e.Time = r.Time.UnixMilli()
	e.SeverityID, e.Severity = r.ocsfSeverity()
	e.StatusID, e.Status = 2, "Failure"
	switch r.Outcome {
	case "ok", "accept":
		e.StatusID, e.Status = 1, "Success"
	case "challenge": // it has not ended yet
		e.StatusID, e.Status = ocsfOther, "Challenge"
	}
	e.StatusDetail = r.Reason
	e.Message = strings.TrimSpace(r.Action + " " + r.Outcome + " " + strings.TrimSpace(r.User+" "+r.Serial))
	e.Metadata = ocsfMetadata{
		Version: OCSFVersion, UID: strconv.FormatInt(r.Chain, 10) + "-" + strconv.FormatInt(r.Seq, 10), Sequence: r.Seq, EventCode: r.Action, LogName: "audit",
		OriginalTime: r.Time.UTC().Format(micros), TenantUID: r.Realm,
		Product: ocsfProduct{Name: "Watchword", VendorName: "Watchword", Version: version},
	}
	e.Unmapped = r.AppendJSON(nil)
	out, err := json.Marshal(e)
	if err != nil {
		panic("audit: " + err.Error()) // texts and numbers always encode
	}
	return append(b, out...)
}

type ocsfEvent struct {
	ClassUID     int    `json:"class_uid"`
	ClassName    string `json:"class_name"`
	CategoryUID  int    `json:"category_uid"`
	CategoryName string `json:"category_name"`
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	TypeUID      int    `json:"type_uid"`
	Time         int64  `json:"time"` // Unix milliseconds
	SeverityID   int    `json:"severity_id"`
	Severity     string `json:"severity"`
	StatusID     int    `json:"status_id"`
	Status       string `json:"status"`
	StatusDetail string `json:"status_detail,omitempty"`
	Message      string `json:"message"`

	Metadata    ocsfMetadata    `json:"metadata"`
	Actor       *ocsfActor      `json:"actor,omitempty"`
	User        *ocsfUser       `json:"user,omitempty"`
	Entity      *ocsfEntity     `json:"entity,omitempty"`
	API         *ocsfAPI        `json:"api,omitempty"`
	Service     *ocsfService    `json:"service,omitempty"`
	SrcEndpoint *ocsfEndpoint   `json:"src_endpoint,omitempty"`
	Unmapped    json.RawMessage `json:"unmapped"`
}

type ocsfMetadata struct {
	Version      string      `json:"version"`
	UID          string      `json:"uid"`
	Sequence     int64       `json:"sequence"`
	EventCode    string      `json:"event_code"`
	LogName      string      `json:"log_name"`
	OriginalTime string      `json:"original_time"`
	TenantUID    string      `json:"tenant_uid,omitempty"`
	Product      ocsfProduct `json:"product"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version,omitempty"`
}

type ocsfUser struct {
	Name   string `json:"name"`
	Domain string `json:"domain,omitempty"`
}

type ocsfActor struct {
	User    *ocsfUser `json:"user,omitempty"`
	AppName string    `json:"app_name,omitempty"`
}

type ocsfEntity struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type ocsfAPI struct {
	Operation string      `json:"operation"`
	Service   ocsfService `json:"service"`
}

type ocsfService struct {
	Name string `json:"name"`
}

type ocsfEndpoint struct {
	IP   string `json:"ip,omitempty"`
	Port int    `json:"port,omitempty"`
	Name string `json:"name,omitempty"`
}

// activity is what was done, as a class of OCSF numbers it.
type activity struct {
	id   int
	name string
}

// signIns are the actions that are an Authentication.
var signIns = map[string]activity{
	"verify":        {1, "Logon"},
	"session.start": {1, "Logon"},
	"session.renew": {1, "Logon"},
	"session.end":   {2, "Logoff"},
}

// accountChanges are the actions that are an Account Change, where it is known whose.
var accountChanges = map[string]activity{
	"user.add":        {1, "Create"},
	"user.enable":     {2, "Enable"},
	"user.pin.change": {3, "Password Change"},
	"user.pin":        {4, "Password Reset"},
	"user.disable":    {5, "Disable"},
	"role.grant":      {7, "Attach Policy"},
	"role.revoke":     {8, "Detach Policy"},
	"user.unlock":     {ocsfOther, "Unlock"},
	"user.edit":       {ocsfOther, "Edit"},
	"user.groups":     {ocsfOther, "Change Groups"},

	"token.assign":   {10, "MFA Factor Enable"},
	"token.activate": {10, "MFA Factor Enable"},
	"token.resume":   {10, "MFA Factor Enable"},
	"token.enrol":    {10, "MFA Factor Enable"},
	"key.enrol":      {10, "MFA Factor Enable"},
	"recovery.add":   {10, "MFA Factor Enable"},
	"temporary.add":  {10, "MFA Factor Enable"},
	"token.unassign": {11, "MFA Factor Disable"},
	"token.suspend":  {11, "MFA Factor Disable"},
	"token.lost":     {11, "MFA Factor Disable"},
	"token.revoke":   {11, "MFA Factor Disable"},
}

// looks are the ends of actions that change nothing.
var looks = []string{".list", ".show", ".why", ".story", ".drift", ".check", ".export", ".simulate", ".verify", ".test"}

// ocsf chooses the class, and fills in what it requires.
func (r *Record) ocsf() ocsfEvent {
	e := ocsfEvent{Actor: r.ocsfActor(), SrcEndpoint: r.ocsfSource()}
	class := func(uid int, name string, category int, a activity) {
		e.ClassUID, e.ClassName, e.CategoryUID, e.ActivityID, e.ActivityName = uid, name, category, a.id, a.name
		e.CategoryName = "Identity & Access Management"
		if category == ocsfApplication {
			e.CategoryName = "Application Activity"
		}
	}
	kind, _, _ := strings.Cut(r.Action, ".")
	if a, ok := signIns[r.Action]; ok {
		class(ocsfAuthentication, "Authentication", ocsfIAM, a)
		e.User = &ocsfUser{Name: r.User, Domain: r.Realm}
		if r.User == "" { // a key said who it is, or nobody did
			e.User.Name = "unknown"
		}
		e.Service = &ocsfService{Name: r.Client}
		if r.Client == "" {
			e.Service.Name = "Watchword"
		}
		return e
	}
	if a, ok := accountChanges[r.Action]; ok && r.User != "" {
		class(ocsfAccountChange, "Account Change", ocsfIAM, a)
		e.User = &ocsfUser{Name: r.User, Domain: r.Realm}
		return e
	}
	name := r.Serial
	if name == "" {
		name = r.User
	}
	for _, field := range []string{"document", "client", "key", "sink", "batch", "name"} {
		if name == "" {
			name = r.value(field)
		}
	}
	if name != "" && !r.looks() && kind != "server" && kind != "audit" {
		class(ocsfEntityManagement, "Entity Management", ocsfIAM, r.change())
		e.Entity = &ocsfEntity{Name: name, Type: kind}
		return e
	}
	class(ocsfAPIActivity, "API Activity", ocsfApplication, r.change())
	e.API = &ocsfAPI{Operation: r.Action, Service: ocsfService{Name: "Watchword"}}
	if e.SrcEndpoint == nil { // required: the server itself
		e.SrcEndpoint = &ocsfEndpoint{Name: "watchword"}
	}
	return e
}

func (r *Record) looks() bool {
	for _, end := range looks {
		if strings.HasSuffix(r.Action, end) {
			return true
		}
	}
	return false
}

// change is what was done, as Entity Management and API Activity number it.
func (r *Record) change() activity {
	_, verb, _ := strings.Cut(r.Action, ".")
	switch {
	case r.looks():
		return activity{2, "Read"}
	case verb == "add" || verb == "enrol" || verb == "begin" || verb == "publish" || verb == "import" || verb == "start":
		return activity{1, "Create"}
	case strings.HasSuffix(verb, "delete") || verb == "discard" || verb == "undo" || verb == "destroy" || verb == "revoke":
		return activity{4, "Delete"}
	case verb == "put" || strings.HasSuffix(verb, ".put") || verb == "edit" || verb == "note" || verb == "expire" || verb == "replace":
		return activity{3, "Update"}
	}
	if r.Action == "" { // another activity has a name
		return activity{ocsfOther, "Other"}
	}
	return activity{ocsfOther, r.Action}
}

// ocsfActor is who asked: a person, or a program.
func (r *Record) ocsfActor() *ocsfActor {
	if who, ok := strings.CutPrefix(r.Actor, "admin:"); ok {
		domain, name, found := strings.Cut(who, "/")
		if !found {
			domain, name = "", who
		}
		return &ocsfActor{User: &ocsfUser{Name: name, Domain: domain}}
	}
	if r.Actor == "" {
		return &ocsfActor{AppName: "unknown"}
	}
	return &ocsfActor{AppName: r.Actor}
}

// ocsfSource is where the request came from: an address, with a port or without.
func (r *Record) ocsfSource() *ocsfEndpoint {
	if at, err := netip.ParseAddrPort(r.Source); err == nil {
		return &ocsfEndpoint{IP: at.Addr().Unmap().String(), Port: int(at.Port())}
	}
	if at, err := netip.ParseAddr(r.Source); err == nil {
		return &ocsfEndpoint{IP: at.Unmap().String()}
	}
	if r.Source != "" {
		return &ocsfEndpoint{Name: r.Source}
	}
	return nil
}

func (e *Event) ocsfSeverity() (int, string) {
	switch {
	case e.grave():
		return 5, "Critical"
	case e.Outcome == "denied" || e.Outcome == "error" || e.Reason == "locked":
		return 3, "Medium"
	case e.Outcome == "ok" || e.Outcome == "accept" || e.Outcome == "challenge":
		return 1, "Informational"
	}
	return 2, "Low"
}
