// Package dwcpml asks the four models of dwcp-ml: how much a link will carry, how hard to compress,
// which peer is about to fail, and whether consensus is in a high-latency episode.
//
// [NewModelInferenceClient] asks a server, over HTTP or gRPC; [NewLocalModels] runs the same models
// inside the process. Both are [Models], and may be used by many goroutines at once.
package dwcpml
