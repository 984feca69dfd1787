package dwcpml

import (
	"context"
	"testing"
)

func TestLinksHaveOneNormalForm(t *testing.T) {
	for given, want := range map[string]string{
		"1.0/2.0":     "1/2",
		" 1 / 2. ":    "1/2",
		"1":           "1",
		"-3.00":       "-3",
		"n-1.0/a.b":   "n-1.0/a.b",
		"0.5/1.50":    "0.5/1.50",
		"rack/1.0/2":  "rack/1/2",
		"1.0.0/v1.0.": "1.0.0/v1.0.",
	} {
		labels, err := labelsOf(WithLink(context.Background(), given), BandwidthPredictor)
		if err != nil || labels.link != want {
			t.Errorf("the link %q became %q, %v; want %q", given, labels.link, err, want)
		}
	}
	if _, err := labelsOf(WithLink(context.Background(), "  "), BandwidthPredictor); err == nil {
		t.Error("a blank link was accepted")
	}
}

func TestLinksOfAnyScriptAreEncoded(t *testing.T) {
	for given, want := range map[string]string{
		"n-1/n-2":   "n-1/n-2",
		"a b/c":     "a b/c",
		"zürich/東京": "z%C3%BCrich/%E6%9D%B1%E4%BA%AC",
		"50%":       "50%25",
		"a\tb":      "a%09b",
	} {
		labels, err := labelsOf(WithLink(context.Background(), given), BandwidthPredictor)
		if err != nil {
			t.Fatalf("the link %q was rejected: %v", given, err)
		}
		if got := encodeLink(labels.link); got != want {
			t.Errorf("the link %q is sent as %q; want %q", given, got, want)
		}
	}
	if _, err := labelsOf(WithLink(context.Background(), "z\xfcrich"), BandwidthPredictor); err == nil {
		t.Error("a link that is not UTF-8 was accepted")
	}
}
