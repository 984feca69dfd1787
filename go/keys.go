package dwcpml

import (
	"regexp"
	"strings"
)

// wholeFloat is a whole number, as pandas writes one that it holds as a float.
var wholeFloat = regexp.MustCompile(`^-?[0-9]+\.0*$`)

// normalLink is the normal form of a link, the one in which the server compares it with telemetry: without
// white space around the names of the nodes, and 60.0 is 60. The other rules of the server, in
// dwcp_ml/contract/keys.py, are about names that are rare in requests, and are left to it.
func normalLink(link string) string {
	names := strings.Split(link, "/")
	for at, name := range names {
		name = strings.TrimSpace(name)
		if wholeFloat.MatchString(name) {
			name, _, _ = strings.Cut(name, ".")
		}
		names[at] = name
	}
	return strings.Join(names, "/")
}
