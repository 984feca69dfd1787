#!/bin/sh
# Writes the generated files again, here and in ../feedback, from the files of the server: the only
# ones there are. PYTHON names a Python that has grpcio-tools (it brings protoc).
set -eu
cd "$(dirname "$0")/.."
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
GOBIN="$plugins" go install -p 1 google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11
GOBIN="$plugins" go install -p 1 google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
for name in inference feedback; do
    # The path below the import root is the file's name in the process-wide registry of protobuf, so
    # it must be one that nobody else has.
    file=dwcpml/internal/$name/$name.proto
    package=ml.dwcp.io/dwcpml/internal/$name
    PATH="$plugins:$PATH" "${PYTHON:-../../.venv/bin/python}" -m grpc_tools.protoc \
        --proto_path="dwcpml/internal/$name=../../dwcp_ml/serving/proto" \
        --go_out="$name" --go_opt="module=$package,M$file=$package" \
        --go-grpc_out="$name" --go-grpc_opt="module=$package,M$file=$package" \
        "$file"
done
