package dwcpml

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// bundle is a model.onnx whose SHA-256 is the one in its manifest.
type bundle struct {
	spec    *modelSpec
	form    formSpec
	version string
	onnx    []byte
}

// manifest is the part of manifest.json that the client reads.
type manifest struct {
	SchemaVersion int              `json:"schema_version"`
	Name          string           `json:"name"`
	Version       string           `json:"version"`
	Form          string           `json:"form"`
	Inputs        []manifestTensor `json:"inputs"`
	Outputs       []manifestTensor `json:"outputs"`
	FeatureOrder  []string         `json:"feature_order"`
	Files         map[string]struct {
		SHA256    string `json:"sha256"`
		SizeBytes int64  `json:"size_bytes"`
	} `json:"files"`
}

type manifestTensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	DType string `json:"dtype"`
}

// findBundles opens <model>/<version>/ of each model in the directory: the requested
// version, or the newest. Links that lead out of the directory are not followed.
func findBundles(directory string, versions map[string]string) ([]*bundle, error) {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, notFound("", "the bundle directory can't be opened: %s", err)
	}
	defer root.Close()
	var bundles []*bundle
	for _, spec := range contract {
		version, err := chooseVersion(root, spec.Name, versions[spec.Name])
		if err != nil {
			return nil, err
		}
		if version == "" {
			continue
		}
		opened, err := openBundle(root, spec, version)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, opened)
	}
	if len(bundles) == 0 {
		return nil, notFound("", "there is no <model>/<version>/%s below %s", manifestName, directory)
	}
	return bundles, nil
}

// chooseVersion returns the requested version, or the newest; empty if there is none of the model.
func chooseVersion(root *os.Root, model, requested string) (string, error) {
	entries, err := fs.ReadDir(root.FS(), model)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", notFound(model, "the bundles can't be listed: %s", err)
	}
	newest := ""
	for _, entry := range entries {
		version := entry.Name()
		if _, err := root.Lstat(path.Join(model, version, manifestName)); err != nil || !isValidVersion(version) {
			continue
		}
		if version == requested || requested == "" && (newest == "" || compareVersions(version, newest) > 0) {
			newest = version
		}
	}
	if requested != "" && newest == "" {
		return "", notFound(model, "there is no bundle of version %s", requested)
	}
	return newest, nil
}

// compareVersions orders runs of digits as numbers and the rest as text, so that 10 comes after 9.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		var left, right string
		left, a = firstRun(a)
		right, b = firstRun(b)
		if isDigit(left[0]) && isDigit(right[0]) {
			left, right = strings.TrimLeft(left, "0"), strings.TrimLeft(right, "0")
			if order := cmp.Compare(len(left), len(right)); order != 0 {
				return order
			}
		}
		if order := cmp.Compare(left, right); order != 0 {
			return order
		}
	}
	return cmp.Compare(len(a), len(b))
}

func firstRun(text string) (run, rest string) {
	end := 1
	for end < len(text) && isDigit(text[end]) == isDigit(text[0]) {
		end++
	}
	return text[:end], text[end:]
}

func isDigit(letter byte) bool { return '0' <= letter && letter <= '9' }

// openBundle reads a manifest and the model that it names, and checks that they match.
func openBundle(root *os.Root, spec *modelSpec, version string) (*bundle, error) {
	where := path.Join(spec.Name, version)
	text, err := readRegularFile(root, path.Join(where, manifestName), maxManifestBytes)
	if err != nil {
		return nil, bundleError(spec, where, "%s", err)
	}
	var parsed manifest
	if err := json.Unmarshal(text, &parsed); err != nil {
		return nil, bundleError(spec, where, "%s can't be read: %s", manifestName, err)
	}
	form, err := parsed.check(spec, version)
	if err != nil {
		return nil, bundleError(spec, where, "%s", err)
	}
	listed, found := parsed.Files[onnxName]
	if !found {
		return nil, bundleError(spec, where, "%s does not list %s", manifestName, onnxName)
	}
	onnx, err := readRegularFile(root, path.Join(where, onnxName), maxBundleBytes)
	if err != nil {
		return nil, bundleError(spec, where, "%s", err)
	}
	digest := sha256.Sum256(onnx)
	if listed.SizeBytes != int64(len(onnx)) || listed.SHA256 != hex.EncodeToString(digest[:]) {
		return nil, bundleError(spec, where, "%s is not the file that %s lists: its SHA-256 is %x", onnxName, manifestName, digest)
	}
	return &bundle{spec: spec, form: form, version: version, onnx: onnx}, nil
}

// check compares a manifest with the contract and returns the form of the model's prediction.
func (m *manifest) check(spec *modelSpec, version string) (formSpec, error) {
	switch {
	case m.SchemaVersion != manifestSchema:
		return formSpec{}, fmt.Errorf("the manifest has schema version %d, not %d", m.SchemaVersion, manifestSchema)
	case m.Name != spec.Name || m.Version != version:
		return formSpec{}, fmt.Errorf("the manifest is that of %s %s", m.Name, m.Version)
	case !slices.Equal(m.FeatureOrder, spec.Features):
		return formSpec{}, fmt.Errorf("the features are %v, not %v", m.FeatureOrder, spec.Features)
	case len(m.Inputs) != 1 || !m.Inputs[0].is(spec.Input):
		return formSpec{}, fmt.Errorf("the inputs are %v, not %s %v", m.Inputs, spec.Input.Name, spec.Input.Shape)
	}
	at := slices.IndexFunc(spec.Forms, func(form formSpec) bool { return form.Name == m.Form })
	if at < 0 {
		return formSpec{}, fmt.Errorf("there is no form %q", m.Form)
	}
	form := spec.Forms[at]
	if !slices.EqualFunc(m.Outputs, form.Outputs, manifestTensor.is) {
		return formSpec{}, fmt.Errorf("the outputs are %v, not those of the contract", m.Outputs)
	}
	return form, nil
}

func (t manifestTensor) is(spec tensorSpec) bool {
	return t.Name == spec.Name && t.DType == spec.DType && slices.Equal(t.Shape, spec.Shape)
}

// readRegularFile reads a file that is not a link and has at most limit bytes.
func readRegularFile(root *os.Root, name string, limit int64) ([]byte, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path.Base(name))
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var content bytes.Buffer
	size, err := io.Copy(&content, io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s is over %d bytes", path.Base(name), limit)
	}
	return content.Bytes(), nil
}

func bundleError(spec *modelSpec, where, format string, values ...any) *Error {
	return &Error{
		Model: spec.Name, kind: ErrInvalidInput,
		Message: fmt.Sprintf("the bundle %s is invalid: %s", where, fmt.Sprintf(format, values...)),
	}
}

func notFound(model, format string, values ...any) *Error {
	return &Error{Model: model, kind: ErrModelNotFound, Message: fmt.Sprintf(format, values...)}
}
