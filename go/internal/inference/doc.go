// Package inference holds the generated messages and stubs of the Open Inference Protocol.
package inference

//go:generate ./generate.sh
