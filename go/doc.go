// Package dwcpml calls the four models of dwcp-ml: the next throughput of a link, the compression level,
// whether a node is failing, and whether consensus is in a high-latency episode.
//
// [NewModelInferenceClient] calls a server, over HTTP or gRPC; [NewLocalModels] runs the same models
// inside the process. Both implement [Models] and are safe for concurrent use.
package dwcpml
