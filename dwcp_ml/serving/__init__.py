"""The model server: V1 and V2 over HTTP, V2 over gRPC, and a small client of all three."""
