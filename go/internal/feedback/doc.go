// Package feedback holds the generated messages and stubs of the server's service for outcomes.
package feedback

//go:generate ../inference/generate.sh
